"""Files from the network: fetched once, checked, and kept for every workspace of the repository."""

import http.client
import os
import shutil
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from ddpm.runtime.checksums import checksum
from ddpm.runtime.errors import InputError, is_disk_full
from ddpm.runtime.locks import lock
from ddpm.runtime.paths import main_root
from ddpm.runtime.pointers import REASON, is_pointer_file
from ddpm.runtime.progress import progress_bar

BLOCK = 1 << 20  # bytes read at a time, at most
TIMEOUT = 30  # seconds without a byte after which a server counts as gone
LIMIT = 2 << 30  # bytes; several times the largest file, so what goes on beyond is none of them


@dataclass(frozen=True)
class Remote:
    """A file on the network and the checksum that it must have.

    urls: where it is, tried in this order.
    algorithm: md5 or sha256.
    digest: hexadecimal, the whole checksum or the start of it.
    """

    name: str
    urls: tuple[str, ...]
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
    if is_pointer_file(path):
        raise InputError(f"{path}: {REASON}")
    found = checksum(path, remote.algorithm)
    if not found.startswith(remote.digest):
        raise InputError(
            f"{path}: {remote.algorithm} is {found}, expected {remote.digest}, so it is not {remote.name} "
            f"or is damaged; replace it by {remote.urls[0]}"
        )


def ensure(files: list[Remote]) -> None:
    """Have every file in the store, fetching those that are not there yet.

    Raises:
        InputError: a file cannot be fetched (reported with all the others that are missing), or has another checksum.
    """
    missing = [remote for remote in files if not (store() / remote.name).exists()]
    for remote in files:
        if remote not in missing:
            verify(store() / remote.name, remote)
    while missing:
        try:
            _download(missing[0])
        except (OSError, http.client.HTTPException) as error:
            if is_disk_full(error):
                raise
            wanted = ", ".join(f"{remote.name} ({remote.urls[0]})" for remote in missing)
            raise InputError(
                f"{missing[0].name}: cannot be downloaded ({error}); connect to the network and run the command again, "
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
    """Fetch one file into the store, where it appears only when it is complete and right.

    What a broken connection or a killed process has left is kept, and gone on with.

    Raises:
        OSError: no address has it; the message has the reason of each.
    """
    store().mkdir(parents=True, exist_ok=True)
    part, reasons = store() / f"{remote.name}.part", []
    with _alone(part) as stream:
        try:
            if (store() / remote.name).exists():  # the process that this one waited for has fetched it
                return
            for url in remote.urls:
                try:
                    _fetch(url, stream, remote)
                    part.replace(store() / remote.name)
                    return
                except (OSError, http.client.HTTPException) as error:
                    if is_disk_full(error):
                        raise
                    reasons.append(f"{url}: {' '.join(str(error).strip('<>').split()) or type(error).__name__}")
            raise OSError("; ".join(reasons))
        finally:
            if stream.tell() == 0:
                part.unlink(missing_ok=True)


@contextmanager
def _alone(part: Path) -> Iterator[IO[bytes]]:
    """Open an unfinished file at its end, for this process alone; another one waits here until it is finished."""
    while True:
        with part.open("ab", buffering=0) as stream:
            lock(stream)
            stream.seek(0, os.SEEK_END)  # the other one may have written since
            if os.fstat(stream.fileno()).st_nlink:  # else it was given up in the meantime
                yield stream
                return


def _fetch(url: str, stream: IO[bytes], remote: Remote) -> None:
    """Append what is missing of the file, and check it; what does not fit what was there before is fetched anew.

    Raises:
        OSError, http.client.HTTPException: the server sends nothing, nothing more, or another file.
    """
    while True:
        before = stream.tell()
        kind = _receive(url, stream, remote.name)
        found = checksum(Path(stream.name), remote.algorithm)
        if found.startswith(remote.digest):
            return
        size = stream.tell()
        stream.truncate(0)
        stream.seek(0)
        if not before:
            page = "; that is a web page, perhaps of a login: open it in a browser" if kind == "text/html" else ""
            raise OSError(
                f"the {size} bytes received are not {remote.name} ({remote.algorithm} is {found[:12]}…, "
                f"expected {remote.digest[:12]}…){page}"
            )


def _receive(url: str, stream: IO[bytes], name: str) -> str:
    """Append the rest of a file, asking again as long as the server sends more of it; returns its media type."""
    while True:
        before = stream.tell()
        try:
            return _receive_once(url, stream, name)
        except (OSError, http.client.HTTPException) as error:
            if is_disk_full(error) or stream.tell() <= before:
                raise


def _receive_once(url: str, stream: IO[bytes], name: str) -> str:
    before = stream.tell()
    request = urllib.request.Request(url, headers={"User-Agent": "flowers-ddpm"})
    if before:
        request.add_header("Range", f"bytes={before}-")
    try:
        response = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if before and error.code == http.HTTPStatus.REQUESTED_RANGE_NOT_SATISFIABLE:
            return ""  # nothing is missing; the checksum decides
        raise
    with response:
        if before and response.status != http.HTTPStatus.PARTIAL_CONTENT:  # a server that always sends all
            stream.truncate(0)
            stream.seek(0)
        length = response.headers.get("Content-Length", "")
        total = stream.tell() + int(length) if length.isdecimal() else None
        with progress_bar(total, name, unit="B", unit_scale=True, initial=stream.tell()) as bar:
            while stream.tell() <= LIMIT and (block := response.read1(BLOCK)):
                stream.write(block)
                bar.update(len(block))
        if total and stream.tell() < min(total, LIMIT):
            raise ConnectionError(f"cut off after {stream.tell()} of {total} bytes")
        return response.headers.get_content_type()
