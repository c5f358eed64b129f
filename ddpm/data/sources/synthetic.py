"""Synthetic flowers: every picture follows from (seed, index) alone, so that the pipeline runs without any data set."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from PIL import Image

from ddpm.data.downloads import Remote
from ddpm.data.sources.drawing import draw, kind
from ddpm.data.sources.source import Item


@dataclass(frozen=True)
class Synthetic:
    """`count` pictures of `classes` kinds of flower, 128 pixels wide and high; kinds take turns."""

    raw: Path
    count: int
    classes: int
    seed: int
    name: ClassVar[str] = "synthetic"

    def remote_files(self) -> list[Remote]:
        """Name nothing: pictures are drawn when they are opened."""
        return []

    def fetch(self) -> None:
        """Write source.json alone."""
        self.raw.mkdir(parents=True, exist_ok=True)
        (self.raw / "source.json").write_text(json.dumps({"source": self.name}) + "\n", encoding="utf-8")

    def left_out(self) -> list[dict[str, str]]:
        """List nothing."""
        return []

    def __len__(self) -> int:
        """Count the pictures."""
        return self.count

    def class_names(self) -> list[str]:
        """Name colour and form, for example "pink primrose"."""
        kinds = map(kind, range(self.classes))
        return [f"{palette.name} {form.name}" for form, palette in kinds]

    def items(self) -> Iterator[Item]:
        """Yield the pictures by number; payload is the number."""
        for index in range(self.count):
            yield Item(f"painted_{index:06d}", index % self.classes, index)

    def open(self, item: Item) -> Image.Image:
        """Draw one picture."""
        return draw(self.seed, item.payload, item.label)
