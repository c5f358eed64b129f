"""What determines a result, as one hash over all that DVC regards as a stage's input, and where it comes from."""

import hashlib
import json
import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ddpm.runtime.checksums import checksum
from ddpm.runtime.errors import InputError
from ddpm.runtime.yaml_files import read_yaml

CODE = ("ddpm", "stages", "dvc.yaml")
VERSIONED = ("torch", "torchvision", "numpy", "dvc", "mlflow")


def stage_key(stage: str, params: dict[str, Any], dvc_yaml: Path = Path("dvc.yaml")) -> str:
    """Hash the command, the parameters and the dependencies that determine what a stage produces.

    Two workspaces in which the key is the same give the same result; times, folders and unlisted parameters play
    no part.

    Args:
        stage: its name in `dvc_yaml`.
        params: nested groups, as read from params.yaml.
        dvc_yaml: the pipeline; the stage's dependencies are relative to its folder.

    Returns:
        64 hexadecimal digits (SHA-256).

    Raises:
        InputError: the pipeline, the stage, or one of the stage's parameters or dependencies is missing.
    """
    entry = _stage_entry(stage, dvc_yaml)
    inputs = {
        "cmd": entry["cmd"],
        "params": {name: _value(name, params, stage, dvc_yaml) for name in entry.get("params", [])},
        "deps": {name: _content(dvc_yaml.parent / name, name, stage) for name in entry.get("deps", [])},
    }
    canonical = json.dumps(inputs, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical.encode()).hexdigest()


def stage_names(dvc_yaml: Path = Path("dvc.yaml")) -> list[str]:
    """Names of all stages of the pipeline.

    Raises:
        InputError: there is no pipeline.
    """
    return list(_stages(dvc_yaml))


def output_places(dvc_yaml: Path = Path("dvc.yaml")) -> list[str]:
    """List what DVC deletes before the stages write it, files and folders, relative to the pipeline.

    Without those that are in git, as metrics are.

    Raises:
        InputError: there is no pipeline.
    """
    return [out for stage in _stages(dvc_yaml).values() for out in stage.get("outs", []) if isinstance(out, str)]


def stage_outputs(stage: str, dvc_yaml: Path = Path("dvc.yaml")) -> list[Path]:
    """The files and folders that a stage writes, relative to the folder of the pipeline.

    Raises:
        InputError: the pipeline or the stage is missing.
    """
    entry = _stage_entry(stage, dvc_yaml)
    outs = [*entry.get("outs", []), *entry.get("metrics", [])]
    return [Path(out if isinstance(out, str) else next(iter(out))) for out in outs]


def origin() -> dict[str, str]:
    """Describe where a result comes from: software versions, and the git commit and DVC experiment where there are any.

    Where git knows no commit, or cannot compare the code with it, `git.fault` has its reason, which is also printed,
    unless the code was copied here without git.
    """
    tags = {f"version.{package}": _version(package) for package in VERSIONED}
    tags |= {"version.python": platform.python_version(), "dvc.exp_name": os.environ.get("DVC_EXP_NAME", "")}
    commit, modified = revision()
    fault = "" if commit and modified is not None else _fault()
    if fault and not fault.startswith("not "):
        print(f"git: {fault}; so this run is recorded without {'its changes' if commit else 'a commit'}")
    tags |= {
        "git.commit": commit,
        "git.modified": "" if modified is None else str(modified).lower(),
        "git.fault": fault,
    }
    return {name: value for name, value in tags.items() if value}


def revision(*others: str) -> tuple[str, bool | None]:
    """The git commit on which this workspace is based, or "", and whether its code was changed since, or None.

    Args:
        others: folders that belong to the code besides that of the stages.
    """
    # DVC commits a queued experiment to a temporary branch, under a hash that depends on the time.
    commit = os.environ.get("DVC_EXP_BASELINE_REV") or _git("rev-parse", "--verify", "-q", "HEAD").stdout.strip()
    compared = _git("diff", "--quiet", commit, "--", *CODE, *others).returncode
    return commit, {0: False, 1: True}.get(compared) if commit else None


def _fault() -> str:
    """Why git returns nothing, in a line; with its remedy where the repository is somebody else's."""
    words = " ".join(_git("rev-parse", "--verify", "HEAD").stderr.split())
    if "unknown revision" in words or "Needed a single revision" in words:
        return "there is no commit yet"
    return words.removeprefix("fatal: ") or "not installed"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:  # DVC may be installed apart from this Python, by pipx for one
        return ""


def _git(*command: str) -> subprocess.CompletedProcess[str]:
    try:
        return subprocess.run(["git", *command], capture_output=True, text=True, check=False)
    except FileNotFoundError:  # no git on this machine
        return subprocess.CompletedProcess(command, 127, "", "")


def _stages(dvc_yaml: Path) -> dict[str, Any]:
    return read_yaml(dvc_yaml)["stages"]


def _stage_entry(stage: str, dvc_yaml: Path) -> dict[str, Any]:
    stages = _stages(dvc_yaml)
    if stage not in stages:
        raise InputError(f"{dvc_yaml}: has no stage {stage}, only {', '.join(stages)}")
    return stages[stage]


def _value(name: str, params: dict[str, Any], stage: str, dvc_yaml: Path) -> Any:
    """Value of a parameter or group such as `epochs`, `train` or `data.holdout`."""
    value: Any = params
    for part in name.split("."):
        if not isinstance(value, dict) or part not in value:
            raise InputError(f"{name}: stage {stage} in {dvc_yaml} lists this parameter, but params.yaml lacks it")
        value = value[part]
    return value


def _content(path: Path, name: str, stage: str) -> str | dict[str, str]:
    """Hash of a file, or the hashes of all files below a folder by their relative paths."""
    if path.is_file():
        return checksum(path)
    if path.is_dir():
        files = (file.relative_to(path) for file in path.rglob("*") if file.is_file())
        return {file.as_posix(): checksum(path / file) for file in files if not _is_bytecode(file)}
    raise InputError(f"{name}: stage {stage} depends on it, but it is missing; run `dvc repro {stage}`")


def _is_bytecode(file: Path) -> bool:
    # Python leaves these beside its sources, and .dvcignore names them for the same reason.
    return file.suffix == ".pyc" or "__pycache__" in file.parts
