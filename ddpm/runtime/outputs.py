"""What a user may have put in the places of outputs: files, which DVC would delete, and links, which it refuses."""

import subprocess
from pathlib import Path

from ddpm.runtime.checksums import checksum
from ddpm.runtime.errors import InputError
from ddpm.runtime.lineage import output_places

SHOWN = 3


def check_places(dvc_yaml: Path = Path("dvc.yaml")) -> None:
    """Refuse the first run of a pipeline over files that lie where its outputs will, and of which DVC has no copy.

    Later runs are not looked at: what lies in these places then is of the run before.

    Raises:
        InputError: there are such files.
    """
    root = dvc_yaml.parent
    if (root / "dvc.lock").exists() or not dvc_yaml.exists() or not (files := _files(root, output_places(dvc_yaml))):
        return
    cache = _cache(root) / "files" / "md5"
    if lost := [file for file in files if not _is_in(cache, root / file)]:
        more = f" and {len(lost) - SHOWN} more" if len(lost) > SHOWN else ""
        raise InputError(
            f"{', '.join(lost[:SHOWN])}{more}: would be deleted, for the stages write files of these names, and DVC "
            "has no copy; move or rename what is yours, and delete the rest"
        )


def check_links(dvc_yaml: Path = Path("dvc.yaml")) -> None:
    """Refuse places of outputs below a link that leads elsewhere: DVC would refuse them when the work is done.

    Raises:
        InputError: there is such a link.
    """
    root = dvc_yaml.parent
    for folder in dict.fromkeys(Path(place).parent for place in output_places(dvc_yaml)):
        target = (root / folder).resolve()
        if not target.is_relative_to(root.resolve()):
            raise InputError(
                f"{folder}: leads to {target} by a link, and DVC keeps no outputs outside the repository; make it a "
                "folder again, and let the results lie elsewhere by `dvc cache dir FOLDER` and "
                "`dvc config cache.type symlink`"
            )


def _files(root: Path, places: list[str]) -> list[str]:
    """All files at or below the places, relative to the root."""
    found = (path for place in places for path in (root / place, *sorted((root / place).rglob("*"))))
    return [path.relative_to(root).as_posix() for path in found if path.is_file()]


def _is_in(cache: Path, file: Path) -> bool:
    digest = checksum(file, "md5")
    return (cache / digest[:2] / digest[2:]).is_file()


def _cache(root: Path) -> Path:
    """DVC's cache, which its configuration may place elsewhere."""
    try:
        printed = subprocess.run(["dvc", "cache", "dir"], cwd=root, capture_output=True, text=True, check=True).stdout
        return root / printed.splitlines()[-1]
    except (OSError, subprocess.CalledProcessError, IndexError):
        return root / ".dvc" / "cache"
