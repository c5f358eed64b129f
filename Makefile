# make demo: everything on a small scale, without a GPU or a download.   make test: the tests.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# By uv, where it is installed, which is faster than pip; `make install UV=` does without it.
UV ?= $(shell command -v uv 2>/dev/null)
INSTALL = $(if $(UV),"$(UV)" pip install --python $(BIN)/python,$(BIN)/python -m pip install --disable-pip-version-check)
INSTALLED := $(VENV)/.installed

.PHONY: install demo test test-slow lint lock audit clean

install: $(INSTALLED)

# The versions that were tested; pyproject.toml has the ranges that should work.
$(INSTALLED): requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed: make PYTHON=python3.12 ...")'
	@echo "Installing PyTorch, DVC and MLflow into $(VENV): about 5 GB, a few minutes."
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --quiet --require-hashes -r requirements.lock
	touch $(INSTALLED)

demo: $(INSTALLED)
	$(BIN)/python -m demo

test: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile -m "not slow"

test-slow: $(INSTALLED)
	PATH="$(CURDIR)/$(BIN):$$PATH" $(BIN)/python -m pytest -n auto --maxprocesses 2 --dist loadfile -m slow

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

lock:  # needs uv
	uv pip compile pyproject.toml --universal --extra offline --extra dev --no-emit-index-url --generate-hashes --output-file requirements.lock

audit:  # needs pip-audit, and asks PyPI for the known vulnerabilities of every locked version
	pip-audit --requirement requirements.lock --disable-pip --strict

clean:
	rm -rf .demo .mypy_cache .ruff_cache .pytest_cache .import_linter_cache
