"""Files from the network: fetched once, checked, and kept for every workspace of the repository."""

import http.client
import os
import shutil
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from ddpm.checksums import checksum
from ddpm.errors import InputError
from ddpm.paths import main_root
from ddpm.progress import progress_bar

BLOCK = 1 << 20  # bytes read at a time
TIMEOUT = 30  # seconds without a byte after which a server counts as gone


@dataclass(frozen=True)
class Remote:
    """A file on the network and the checksum that it must have.

    algorithm: md5 or sha256.
    digest: hexadecimal, the whole checksum or the start of it.
    """

    name: str
    url: str
    algorithm: str
    digest: str


def store() -> Path:
    """Folder of all downloads; DVC deletes a stage's outputs before each run, but never this one."""
    return main_root() / "data" / "downloads"


def verify(path: Path, remote: Remote) -> None:
    """Check that a file is the one that `remote` describes.

    Raises:
        InputError: it has another checksum.
    """
    found = checksum(path, remote.algorithm)
    if not found.startswith(remote.digest):
        raise InputError(
            f"{path}: {remote.algorithm} is {found}, expected {remote.digest}, so it is not {remote.name} "
            f"or is damaged; replace it by {remote.url}"
        )


def ensure(files: list[Remote]) -> None:
    """Have every file in the store, fetching those that are not there yet.

    Raises:
        InputError: a file cannot be fetched (told with all the others that are missing), or has another checksum.
    """
    missing = [remote for remote in files if not (store() / remote.name).exists()]
    for remote in files:
        if remote not in missing:
            verify(store() / remote.name, remote)
    while missing:
        try:
            _download(missing[0])
        except (OSError, http.client.HTTPException) as error:
            wanted = ", ".join(f"{remote.name} ({remote.url})" for remote in missing)
            raise InputError(
                f"{missing[0].url}: cannot be downloaded ({str(error).strip('<>')}); connect to the network, "
                f"or place by hand into {store()}: {wanted}; `make demo` needs no network"
            ) from None
        del missing[0]


def place(files: list[Remote], folder: Path) -> None:
    """Put files into `folder`, from the store or the network.

    Raises:
        InputError: see `ensure`.
    """
    ensure(files)
    folder.mkdir(parents=True, exist_ok=True)
    for remote in files:
        source, target = (store() / remote.name).resolve(), folder / remote.name
        target.unlink(missing_ok=True)
        try:
            os.link(source, target)
        except OSError:  # another file system, or one without hard links
            shutil.copyfile(source, target)


def _download(remote: Remote) -> None:
    """Fetch one file into the store, where it appears only when it is complete and right."""
    store().mkdir(parents=True, exist_ok=True)
    # Named by process: two queued experiments may fetch the same file.
    part = store() / f"{remote.name}.{os.getpid()}.part"
    request = urllib.request.Request(remote.url, headers={"User-Agent": "flowers-ddpm"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response, part.open("wb") as stream:
            size = int(response.headers.get("Content-Length", 0)) or None
            with progress_bar(size, remote.name, unit="B", unit_scale=True) as bar:
                while block := response.read(BLOCK):
                    stream.write(block)
                    bar.update(len(block))
        if not checksum(part, remote.algorithm).startswith(remote.digest):
            raise InputError(
                f"{remote.url}: the {part.stat().st_size} bytes received are not {remote.name} ({remote.algorithm} is "
                f"{checksum(part, remote.algorithm)}, expected {remote.digest}); run the command again"
            )
        part.replace(store() / remote.name)
    finally:
        part.unlink(missing_ok=True)
