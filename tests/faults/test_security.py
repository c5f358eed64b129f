"""What SECURITY.md promises of the code; what it promises of inputs is in test_errors.py."""

import ast
import configparser
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import ROOT

SOURCES = sorted(path for name in ("ddpm", "stages", "demo", "benchmarks") for path in (ROOT / name).rglob("*.py"))
# Calls that run what they are given, and what would make them harmless.
RUNS_CODE = {
    "eval": None,
    "exec": None,
    "compile": None,
    "__import__": None,
    "os.system": None,
    "os.popen": None,
    "pickle.load": None,
    "pickle.loads": None,
    "yaml.load": None,
    "torch.load": "weights_only=True",
    "Image.open": "formats",
}


def calls(path: Path) -> Iterator[tuple[str, list[str]]]:
    """Every call in a module: its name with dots, and its keywords, those of constants with their value."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            keywords = [
                f"{word.arg}={word.value.value}" if isinstance(word.value, ast.Constant) else str(word.arg)
                for word in node.keywords
            ]
            yield ast.unparse(node.func), keywords


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_nothing_that_is_read_is_run(path):
    for name, keywords in calls(path):
        assert "shell=True" not in keywords, name
        assert "allow_pickle=True" not in keywords, name
        assert not name.endswith((".extractall", ".extract")), f"{name} writes where an archive wants"
        harmless = RUNS_CODE.get(name, "")
        assert harmless == "" or harmless in keywords or from_memory(path, name), f"{name} in {path.name}"


def from_memory(path: Path, name: str) -> bool:
    """Pictures that this program has drawn itself a moment ago."""
    return name == "Image.open" and path.name == "figures.py"


def test_dvc_reports_nothing_about_its_use():
    config = configparser.ConfigParser()
    config.read(ROOT / ".dvc/config")
    core = {name.strip(): value for name, value in config["core"].items()}
    assert core["analytics"] == core["check_update"] == "false"


def test_only_downloads_open_a_connection():
    """And tracking, where MLflow talks to the store that the user names, and the doctor, who asks for an answer."""
    network = {"urllib.request", "http.client", "socket", "requests", "ssl", "ftplib"}
    found = set()
    for path in SOURCES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            names += [node.module] if isinstance(node, ast.ImportFrom) and node.module else []
            found |= {path.relative_to(ROOT).as_posix() for name in names if name in network}
    assert found <= {"ddpm/data/downloads.py", "ddpm/tracking/processes.py", "ddpm/commands/checks.py"}


@pytest.mark.parametrize("page", ["SECURITY.md", "docs/reproducibility.md"])
def test_every_proof_that_a_page_names_is_there(page):
    text = (ROOT / page).read_text(encoding="utf-8")
    proofs = re.findall(r"`(test_\w+\.py)::(test_\w+)`", text)
    assert len(proofs) >= 10
    for file, name in proofs:
        (path,) = (ROOT / "tests").rglob(file)
        assert f"def {name}(" in path.read_text(encoding="utf-8"), f"{file}::{name}"
