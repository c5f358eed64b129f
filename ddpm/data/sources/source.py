"""What every source of images offers."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

from PIL import Image

from ddpm.data.downloads import Remote


@dataclass(frozen=True)
class Item:
    """One image before it is decoded.

    id: unique in its source, and the same whenever and wherever the source is read.
    label: 0-based class.
    payload: whatever the source's `open` needs; it travels to a worker process.
    """

    id: str
    label: int
    payload: Any = None


class Source(Protocol):
    """A collection of labelled images; picklable, because worker processes open the images."""

    name: ClassVar[str]

    def remote_files(self) -> list[Remote]:
        """What `fetch` needs from the network."""

    def fetch(self) -> None:
        """Write into data/raw/fetched what the other methods need, and always a `source.json`.

        Only this may use the network.

        Raises:
            InputError: the images cannot be had.
        """

    def left_out(self) -> list[dict[str, str]]:
        """List the files that look like images and are no items: {id, reason} of each."""

    def __len__(self) -> int:
        """Count the items."""

    def class_names(self) -> list[str]:
        """Names of the classes; the position is the label."""

    def items(self) -> Iterator[Item]:
        """Yield every item, always in the same order.

        Raises:
            InputError: data/raw/fetched does not hold what `fetch` wrote.
        """

    def open(self, item: Item) -> Image.Image:
        """Decode one item, as far as PIL does so on opening; runs in a worker process.

        Raises:
            InputError: the image is not what it was when it was fetched.
        """
