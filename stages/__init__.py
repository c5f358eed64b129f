"""The stages of dvc.yaml, one module each; run as `python -m stages.NAME` in the repository root."""

import os
import sys
from collections.abc import Callable
from pathlib import Path

from ddpm.runtime.interpreter import require
from ddpm.runtime.signals import end_with_parent, listen, settle

if sys.argv[0] == "-m":  # a stage is about to run, whose imports take seconds
    listen()
require("pydantic", "torch", "torchvision")

import ddpm  # noqa: E402
from ddpm.config import Config, load_config  # noqa: E402
from ddpm.runtime.errors import InputError, guarded  # noqa: E402
from ddpm.runtime.lineage import stage_outputs  # noqa: E402
from ddpm.runtime.outputs import check_links  # noqa: E402
from ddpm.runtime.stage_files import detach  # noqa: E402
from ddpm.runtime.stage_times import timed  # noqa: E402
from ddpm.runtime.streams import withstand  # noqa: E402

end_with_parent()  # here, for the same reason


def run(stage: Callable[[Config], None]) -> None:
    """Run one stage with the parameters of this workspace; a failure is a line and an exit code, no traceback.

    Exit codes: 0 done, 1 the work failed, 2 wrong input, 128 + n ended by signal n: run it again.
    """
    listen()
    settle()
    withstand(lambda: None)  # work of hours does not end because nobody looks at it any more
    try:
        guarded(lambda: _run(stage))
    finally:
        settle()


def _run(stage: Callable[[Config], None]) -> None:
    _check_package()
    config = load_config()
    if config.tracking.enabled:  # without it, a stage runs where there is no MLflow, such as on a borrowed GPU
        require("mlflow")
    if os.environ.get("RANK", "0") != "0":  # rank 0 notes the time
        stage(config)
        return
    name = Path(stage.__code__.co_filename).stem
    with timed(name, config.model_dump(mode="json")):
        if "DVC_STAGE" in os.environ:
            check_links()
        detach(stage_outputs(name))
        stage(config)


def _check_package() -> None:
    """Refuse an installed copy of the package: a queued experiment must run the code that was queued."""
    package = Path(ddpm.__file__).resolve().parent
    if package.parent != Path.cwd().resolve():
        raise InputError(
            f"ddpm was imported from {package}, not from this workspace; run `python -m stages.NAME` "
            "in the repository root, without an installed copy (`pip uninstall flowers-ddpm`)"
        )
