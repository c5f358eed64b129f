"""Oxford Flowers-102 (Nilsback & Zisserman 2008): 8,189 photographs in 102 classes, as one tar archive."""

import gzip
import io
import json
import re
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np
from PIL import Image

from ddpm.data import downloads
from ddpm.data.downloads import Remote
from ddpm.data.sources.source import Item
from ddpm.runtime.errors import InputError

ARCHIVE, LABELS, SPLITS = "102flowers.tgz", "imagelabels.mat", "setid.mat"
MAX_BYTES, MAX_FILES = 1 << 30, 100_000  # unpacked; the official archive has a third of that, and 8,189 files
SPLIT_KEYS = {"train": "trnid", "val": "valid", "test": "tstid"}  # names inside setid.mat


@dataclass(frozen=True)
class Flowers102:
    """The official files, untouched in `raw`; images are read out of the archive in its own order.

    The archive is never unpacked: DVC takes seconds for thousands of small files at every command, and none for one
    large file.
    """

    raw: Path
    splits: tuple[str, ...]
    name: ClassVar[str] = "flowers102"

    def remote_files(self) -> list[Remote]:
        """List the three files, with the addresses and checksums that torchvision publishes."""
        # Imported here because it takes seconds, and preprocessing needs none of it.
        from torchvision.datasets import Flowers102 as Official

        files = dict(Official._file_dict.values())
        return [
            Remote(name, (Official._download_url_prefix + name,), "md5", files[name])
            for name in (ARCHIVE, LABELS, SPLITS)
        ]

    def fetch(self) -> None:
        """Download the archive, labels and splits (345 MB) unless the store of downloads has them."""
        files = self.remote_files()
        downloads.place(files, self.raw)
        content = {"source": self.name, "files": {remote.name: remote.digest for remote in files}}
        text = json.dumps(content, indent=2, sort_keys=True) + "\n"
        (self.raw / "source.json").write_text(text, encoding="utf-8")

    def left_out(self) -> list[dict[str, str]]:
        """List nothing."""
        return []

    def __len__(self) -> int:
        """Count the images of the chosen splits."""
        return len(self._labels())

    def class_names(self) -> list[str]:
        """Name the 102 flowers."""
        return list(CLASS_NAMES)

    def items(self) -> Iterator[Item]:
        """Yield JPEG bytes for each image of the chosen splits, in the order of the archive."""
        labels = self._labels()
        try:
            with (
                gzip.open(self.raw / ARCHIVE) as stream,
                tarfile.open(fileobj=(unpacked := _Limited(stream)), mode="r|") as archive,  # type: ignore[call-overload]
            ):
                for count, member in enumerate(archive):
                    if count > MAX_FILES:
                        raise OSError(f"it holds more than {MAX_FILES} files")
                    number = re.search(r"image_([0-9]{5})\.jpg\Z", member.name)
                    # The zeros of a sparse member are in no file, and so under no limit.
                    if number and member.isreg() and not member.issparse() and int(number[1]) in labels:
                        content = archive.extractfile(member).read()
                        yield Item(f"image_{number[1]}", labels.pop(int(number[1])), content)
                while unpacked.read(1 << 20):  # to the end, where gzip compares its checksum
                    pass
        except Exception as error:  # tarfile and gzip raise half a dozen unrelated types on damaged files
            raise self._damaged(ARCHIVE, str(error) or type(error).__name__) from None
        if labels:
            raise self._damaged(ARCHIVE, f"{len(labels)} images are missing, the first is number {min(labels)}")

    def open(self, item: Item) -> Image.Image:
        """Open JPEG bytes."""
        return Image.open(io.BytesIO(item.payload), formats=["JPEG"])

    def _labels(self) -> dict[int, int]:
        """Map the number of each image in the chosen splits to its 0-based class."""
        labels = self._read(LABELS, "labels") - 1
        numbers = np.sort(np.concatenate([self._read(SPLITS, SPLIT_KEYS[split]) for split in self.splits]))
        if len(labels) and not (labels.min() >= 0 and labels.max() < len(CLASS_NAMES)):
            raise self._damaged(LABELS, f"labels reach from {labels.min() + 1} to {labels.max() + 1}, not 1 to 102")
        if len(numbers) and not (numbers[0] >= 1 and numbers[-1] <= len(labels)):
            raise self._damaged(SPLITS, f"images reach from {numbers[0]} to {numbers[-1]}, not 1 to {len(labels)}")
        return {int(number): int(labels[number - 1]) for number in numbers}

    def _read(self, name: str, key: str) -> np.ndarray:
        """Read one list of whole numbers: (N,) int64."""
        from scipy.io import loadmat

        try:
            with (self.raw / name).open("rb") as stream:
                return loadmat(stream, variable_names=[key])[key].ravel().astype(np.int64)
        except Exception as error:  # SciPy raises half a dozen unrelated types on damaged files
            raise self._damaged(name, str(error) or type(error).__name__) from None

    def _damaged(self, name: str, reason: str) -> InputError:
        reason = " ".join(reason.split())
        return InputError(f"{self.raw / name}: cannot be read ({reason}); run `dvc repro --force download`")


class _Limited:
    """A stream that ends in an error after MAX_BYTES: a small archive may unpack to terabytes."""

    def __init__(self, stream: gzip.GzipFile) -> None:
        self._stream, self._left = stream, MAX_BYTES

    def read(self, size: int) -> bytes:
        """Read up to `size` bytes."""
        data = self._stream.read(size)
        self._left -= len(data)
        if self._left < 0:
            raise OSError(f"it unpacks to more than {MAX_BYTES} bytes")
        return data


CLASS_NAMES = (
    "pink primrose", "hard-leaved pocket orchid", "canterbury bells", "sweet pea", "english marigold", "tiger lily",
    "moon orchid", "bird of paradise", "monkshood", "globe thistle", "snapdragon", "colt's foot", "king protea",
    "spear thistle", "yellow iris", "globe-flower", "purple coneflower", "peruvian lily", "balloon flower",
    "giant white arum lily", "fire lily", "pincushion flower", "fritillary", "red ginger", "grape hyacinth",
    "corn poppy", "prince of wales feathers", "stemless gentian", "artichoke", "sweet william", "carnation",
    "garden phlox", "love in the mist", "mexican aster", "alpine sea holly", "ruby-lipped cattleya", "cape flower",
    "great masterwort", "siam tulip", "lenten rose", "barbeton daisy", "daffodil", "sword lily", "poinsettia",
    "bolero deep blue", "wallflower", "marigold", "buttercup", "oxeye daisy", "common dandelion", "petunia",
    "wild pansy", "primula", "sunflower", "pelargonium", "bishop of llandaff", "gaura", "geranium", "orange dahlia",
    "pink-yellow dahlia", "cautleya spicata", "japanese anemone", "black-eyed susan", "silverbush",
    "californian poppy", "osteospermum", "spring crocus", "bearded iris", "windflower", "tree poppy", "gazania",
    "azalea", "water lily", "rose", "thorn apple", "morning glory", "passion flower", "lotus", "toad lily",
    "anthurium", "frangipani", "clematis", "hibiscus", "columbine", "desert-rose", "tree mallow", "magnolia",
    "cyclamen", "watercress", "canna lily", "hippeastrum", "bee balm", "ball moss", "foxglove", "bougainvillea",
    "camellia", "mallow", "mexican petunia", "bromelia", "blanket flower", "trumpet creeper", "blackberry lily",
)  # fmt: skip
