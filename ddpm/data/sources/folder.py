"""Your own images: any folder, flat or with one sub-folder per class; the files stay where they are."""

import csv
import hashlib
import io
import json
import os
import stat
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, ClassVar, NamedTuple

from PIL import Image

from ddpm.data.class_names import composed
from ddpm.data.downloads import Remote
from ddpm.data.sources.kinds import FORMATS, left_out
from ddpm.data.sources.source import Item
from ddpm.runtime.checksums import checksum
from ddpm.runtime.errors import InputError
from ddpm.runtime.pointers import REASON, is_pointer
from ddpm.runtime.progress import progress_bar
from ddpm.runtime.stage_files import load_json

MAX_BYTES = 1 << 30  # of a file; far above any photograph
FLAT_CLASS = "images"  # class of the images that lie in the folder itself
# Folders in which storage systems keep thumbnails, deleted and lost files (Synology, QNAP, Windows, Linux, macOS), in
# lower case.
SYSTEM_FOLDERS = (
    *("@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin", "recycler"),
    *("system volume information", "lost+found", "__macosx", "network trash folder", "temporary items"),
)
SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation", "dev", "eval"}  # no names of classes
FIELDS: list[object] = ["id", "label", "bytes", "sha256"]


class Found(NamedTuple):
    """Files below a folder.

    ids: of the images, sorted by code point so that no locale changes the order.
    left_out: what looks like an image and is not used, and system folders: {id, reason} of each, as sorted.
    """

    ids: list[str]
    left_out: list[dict[str, str]]

    def classes(self) -> list[str]:
        """The class of each image."""
        return [_class_of(name) for name in self.ids]


@dataclass(frozen=True)
class Folder:
    """Images below `path`; `raw` holds a manifest with their checksums instead of a copy.

    id: path relative to the folder, with / between its parts.
    class: the first sub-folder, however deep the image lies.
    """

    raw: Path
    path: Path
    name: ClassVar[str] = "folder"

    def remote_files(self) -> list[Remote]:
        """Name nothing: the images are here already."""
        return []

    def fetch(self) -> None:
        """Write the manifest: id, label, bytes and sha256 of every image; and print what is left out."""
        ids, omitted = self.find()
        classes = _classes(ids)
        rows: list[list[object]] = [FIELDS]
        with progress_bar(len(ids), "checksums") as bar:
            for name in ids:
                rows.append([name, classes.index(_class_of(name)), *_measure(self.path / name)])
                bar.update()
        self.raw.mkdir(parents=True, exist_ok=True)
        with self._manifest.open("w", encoding="utf-8", newline="") as stream:
            csv.writer(stream, lineterminator="\n").writerows(rows)
        content = {"source": self.name, "count": len(ids), "classes": classes, "left_out": omitted}
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        (self.raw / "source.json").write_text(text, encoding="utf-8")
        if omitted:
            named = named_by_reason(omitted)
            print(f"{self.path}: {len(ids):,} images; {len(omitted):,} left out, which the report lists: {named}")

    def left_out(self) -> list[dict[str, str]]:
        """List what `fetch` has found that looks like an image and is not used, and system folders."""
        return load_json(self.raw / "source.json", {"left_out"}, "download")["left_out"]

    def __len__(self) -> int:
        """Count the images of the manifest."""
        return len(self._rows())

    def class_names(self) -> list[str]:
        """Name the sub-folders in alphabetical order."""
        return _classes([row["id"] for row in self._rows()])

    def items(self) -> Iterator[Item]:
        """Yield the images of the manifest in order of their ids; payload is the sha256."""
        rows = self._rows()
        if changed := {row["id"] for row in rows} ^ set(self.find().ids):
            raise self._changed(self.path / min(changed))
        for row in rows:
            yield Item(row["id"], row["label"], row["sha256"])

    def open(self, item: Item) -> Image.Image:
        """Open an image file after checking that it is the one in the manifest."""
        file = self.path / item.id
        try:
            content = file.read_bytes()
        except OSError:
            raise self._changed(file) from None
        if hashlib.sha256(content).hexdigest() != item.payload:
            raise self._changed(file)
        if is_pointer(content):
            raise ValueError(REASON)
        return Image.open(io.BytesIO(content), formats=FORMATS)

    @property
    def _manifest(self) -> Path:
        return self.raw / "manifest.csv"

    def _rows(self) -> list[dict[str, Any]]:
        try:
            with self._manifest.open(encoding="utf-8", newline="") as stream:
                reader = csv.DictReader(stream)
                if reader.fieldnames != FIELDS:
                    raise ValueError("it is not the manifest that was written")
                return [row | {"label": int(row["label"])} for row in reader]
        except FileNotFoundError:
            raise InputError(f"{self._manifest}: no such file; run `dvc repro --force download`") from None
        except (ValueError, TypeError, csv.Error) as error:
            raise InputError(f"{self._manifest}: damaged ({error}); run `dvc repro --force download`") from None

    def find(self) -> Found:
        """Look at the first bytes of every file below the folder that is not hidden.

        Raises:
            InputError: there is no such folder, it cannot be read, it holds no image that can be decoded, or its
                sub-folders are splits and no classes.
        """
        if not self.path.is_dir():
            raise InputError(f"data.path: {self.path} is no folder; name the folder that holds your images")
        ids, omitted = [], []
        for parent, files, system in _walk(self.path):
            under = parent.relative_to(self.path)
            omitted += [_omitted((under / name).as_posix(), "a folder of the storage system") for name in system]
            for name in files:
                reason = None if name.startswith(".") else left_out(parent / name)
                if reason:
                    omitted.append(_omitted((under / name).as_posix(), reason))
                elif reason == "":
                    ids.append((under / name).as_posix())
        omitted.sort(key=lambda one: one["id"])
        if not ids:
            others = f" that can be decoded; {len(omitted)} left out: {named_by_reason(omitted)}" if omitted else ""
            raise InputError(f"data.path: {self.path} holds no image{others or '; put photographs there'}")
        for name in ids:
            # Control characters, and bytes that are not UTF-8, would not survive a CSV file, or act on a terminal.
            if any(unicodedata.category(letter) in ("Cc", "Cs") for letter in name):
                raise InputError(
                    f"data.path: {self.path} holds {name!a}; rename it without control characters, in UTF-8"
                )
        self._refuse_splits(ids)
        return Found(sorted(ids), omitted)

    def _refuse_splits(self, ids: list[str]) -> None:
        """Refuse folders such as train/rose and test/rose: `train` and `test` would be the classes."""
        names = set(_classes(ids)) - {FLAT_CLASS}
        nested = any(name.count("/") > 1 for name in ids)
        if names and {name.lower() for name in names} <= SPLITS and (len(names) > 1 or nested):
            first = max(names, key=lambda name: name.lower().startswith("train"))
            raise InputError(
                f"data.path: the sub-folders of {self.path} are {', '.join(sorted(names))}, which are splits and no "
                f"classes; name one of them, such as {self.path / first}, or put the classes side by side in one folder"
            )

    def _changed(self, file: Path) -> InputError:
        return InputError(f"{file}: changed since `download`; run `dvc repro --force download`")


def _measure(file: Path) -> tuple[int, str]:
    """Bytes and sha256 of a file."""
    try:
        status = file.stat()
        if not stat.S_ISREG(status.st_mode):  # reading a pipe or a device could last for ever
            raise InputError(f"{file}: is no regular file; remove it, or move it elsewhere")
        if status.st_size > MAX_BYTES:
            raise InputError(f"{file}: {status.st_size} bytes are more than an image has; remove it, or scale it down")
        return status.st_size, checksum(file)
    except OSError as error:
        raise InputError(f"{file}: cannot be read ({error.strerror}); repair or remove it") from None


def _omitted(name: str, reason: str) -> dict[str, str]:
    return {"id": name if name.isprintable() else ascii(name), "reason": reason}


def named_by_reason(omitted: list[dict[str, str]]) -> str:
    """Name the first of what is left out for each reason."""
    by_reason: dict[str, list[str]] = {}
    for one in omitted:
        by_reason.setdefault(one["reason"], []).append(one["id"])
    named = (
        f"{ids[0]}{f' and {len(ids) - 1:,} more' if len(ids) > 1 else ''} ({why})" for why, ids in by_reason.items()
    )
    return ", ".join(named)


def _walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield every folder that is not hidden or the system's, with the names of its files and of its system folders.

    Each comes once, however many links lead to it.

    Links are followed: data sets are often put together from links to folders elsewhere.
    """
    visited = set()
    for parent, folders, files in os.walk(root, followlinks=True, onerror=_refuse):
        folder = Path(parent)
        status = folder.stat()
        if (status.st_dev, status.st_ino) in visited:
            folders.clear()
            continue
        visited.add((status.st_dev, status.st_ino))
        # A folder before the links beside it, so that its images get its own name, whatever order the disk lists.
        system = [name for name in folders if name.lower() in SYSTEM_FOLDERS]
        folders[:] = sorted(
            (name for name in folders if not name.startswith(".") and name not in system),
            key=lambda name: ((folder / name).is_symlink(), name),
        )
        yield folder, files, system


def _refuse(error: OSError) -> None:
    raise InputError(f"data.path: {error.filename} cannot be read ({error.strerror}); permit it, or move it elsewhere")


def _class_of(name: str) -> str:
    """First sub-folder; one name in two Unicode forms is one class, as it looks."""
    parts = PurePosixPath(name).parts
    return composed(parts[0]) if len(parts) > 1 else FLAT_CLASS


def _classes(ids: list[str]) -> list[str]:
    return sorted({_class_of(name) for name in ids})
