"""The stages of dvc.yaml, one module each; run as `python -m stages.NAME` in the repository root."""

import importlib.util
import signal
import sys
from collections.abc import Callable
from pathlib import Path

# DVC runs whichever `python` comes first on the PATH; a wrong one should not end in a traceback.
for _package in ("pydantic", "torch", "mlflow", "pytorch_fid"):
    if importlib.util.find_spec(_package) is None:
        print(f"error: {sys.executable} lacks {_package}; run `source .venv/bin/activate` first", file=sys.stderr)
        sys.exit(2)

import ddpm  # noqa: E402
from ddpm.config import Config, load_config  # noqa: E402
from ddpm.errors import InputError, RunError  # noqa: E402


def run(stage: Callable[[Config], None]) -> None:
    """Run one stage with the parameters of this workspace; end with a sentence and an exit code, not a traceback.

    Exit codes: 0 done, 1 the work failed, 2 wrong input, 128 + n ended by signal n.
    """
    signal.signal(signal.SIGTERM, lambda number, _frame: sys.exit(128 + number))
    try:
        _check_package()
        stage(load_config())
    except InputError as error:
        sys.exit(_complain(error, 2))
    except RunError as error:
        sys.exit(_complain(error, 1))
    except KeyboardInterrupt:
        # DVC would record a partial output as the result of a stage that exits with 0.
        sys.exit(128 + signal.SIGINT)


def _complain(error: Exception, code: int) -> int:
    print(f"error: {error}", file=sys.stderr)
    return code


def _check_package() -> None:
    """Refuse an installed copy of the package: a queued experiment must run the code that was queued."""
    package = Path(ddpm.__file__).resolve().parent
    if package.parent != Path.cwd().resolve():
        raise InputError(
            f"ddpm was imported from {package}, not from this workspace; run `python -m stages.NAME` "
            "in the repository root, without an installed copy (`pip uninstall flowers-ddpm`)"
        )
