"""Is a training on track? Its held-out loss beside that of a reference training after as many images."""

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
from tqdm import tqdm

from ddpm.config import flatten
from ddpm.runtime.errors import InputError, first_line
from ddpm.runtime.paths import REPORTS

if TYPE_CHECKING:
    from ddpm.tracking.runs import Tracker

FILE = REPORTS / "benchmarks" / "reference_curves.csv"  # the curves; beside it, as JSON, what was trained, and where
# Two seeds of one recipe differed by up to 3.3 % at some point of their curves, in three pairs (docs/results.md).
TOLERANCE = 0.05
# Parameters of the training that change its cost, and its result by rounding alone.
COSTS = {"accumulate", "checkpoint_activations", "compile", "precision", "deterministic", "log_every"}
# Losses of other noise levels, targets or image sizes are other quantities.
COMPARABLE = ("schedule", "diffusion", "image_size")
FLOWERS = {"source": "flowers102", "splits": ["test", "train", "val"]}
HOLDOUT = 0.1  # of the images of every reference; copies, which are not parted, move it a little
SENTENCES = 10  # over a whole training


@dataclass(frozen=True)
class Reference:
    """The curve of one recipe.

    name: of the recipe.
    data: its images, in words.
    curve: columns images (seen so far, ascending), heldout_loss, `quick_fid` of an extractor; NaN where not measured.
    stretch: images of a whole training over those of this one where both go by their end, as a learning rate that falls
        does; else 1.
    differs: by what a training is another than this one, such as "`train.lr` 0.0002 (0.001)"; empty: it can be judged.
    """

    name: str
    data: str
    curve: pd.DataFrame
    stretch: float = 1.0
    differs: tuple[str, ...] = ()

    @classmethod
    def of(cls, about: dict[str, Any]) -> Self | None:
        """Find the reference that a training resembles most; None where its loss can be compared with none.

        Args:
            about: the description of its model, as in models/config.json.

        Raises:
            InputError: the curves, or what is beside them, cannot be read.
        """
        found = [
            cls(name, entry["data"], curve, _stretch(about, entry), tuple(_differences(about, entry["recipe"])))
            for name, (entry, curve) in _read().items()
            if all(entry["recipe"][key] == about[key] for key in COMPARABLE)
        ]
        return min(found, key=lambda reference: len(reference.differs), default=None)

    def at(self, images: int, name: str = "heldout_loss") -> float | None:
        """A curve's value after so many images, linear in their logarithm; None before and after what was measured."""
        known = self.curve.dropna(subset=name) if name in self.curve else self.curve[:0]
        seen = round(images / self.stretch)
        if known.empty or not known["images"].iloc[0] <= seen <= known["images"].iloc[-1]:
            return None
        return float(np.interp(np.log(seen), np.log(known["images"]), known[name]))

    def verdict(self, images: int, loss: float) -> str | None:
        """Judge a held-out loss in a sentence; None where it cannot be: in another training, or beyond the curve."""
        expected = None if self.differs else self.at(images)
        if expected is None:
            return None
        when = " after the same part of its training" if self.stretch != 1 else ""
        return (
            f"Held-out loss {loss:.3f} at {images:,} images; the reference ({self.name}) had {expected:.3f}{when}: "
            f"{self._standing(loss / expected, loss)}."
        )

    def paragraph(self, training: dict[str, Any], loss: float) -> str:
        """What the report says of the last held-out loss of a training that is described so, in Markdown."""
        if self.differs:
            return (
                f"The dashed curve is the held-out loss of recipe {self.name} on {self.data}, for orientation alone: "
                f"this training differs from it in {', '.join(self.differs)}."
            )
        verdict = self.verdict(images_of(training), loss)
        last = f"The reference ({self.name}) has no point after as many images, so there is no verdict."
        return f"{verdict or last} It was trained on {self.data}; two seeds differ by up to 3.3 %."

    def drawn(self, training: dict[str, Any]) -> tuple[str, pd.DataFrame]:
        """Name and points (epoch, loss) of the curve, over the epochs of a training that is described so."""
        epochs = self.curve["images"] * self.stretch / training["images"]
        points = pd.DataFrame({"epoch": epochs, "loss": self.curve["heldout_loss"]}).dropna()
        return f"held-out images, reference {self.name}", points[points["epoch"] <= training["epochs"]]

    def _standing(self, ratio: float, loss: float) -> str:
        if ratio <= 1 + TOLERANCE:
            return "on track" if ratio >= 1 - TOLERANCE else "ahead"
        known = self.curve.dropna(subset="heldout_loss")
        if loss > known["heldout_loss"].iloc[0]:
            return f"behind, it was better after {known['images'].iloc[0]:,}"
        reached = known.loc[known["heldout_loss"] <= loss, "images"].iloc[0]
        return f"behind, it was as good after {reached:,}"


class OnTrack:
    """Passes the curves of a training on, and prints now and then where they stand."""

    def __init__(self, tracker: "Tracker", reference: Reference, extractor: str, batch_size: int, steps: int) -> None:
        """Stand between a training and where its curves go.

        Args:
            tracker: where they go.
            reference: of the same recipe.
            extractor: of the quick scores.
            batch_size: images in a step.
            steps: of the whole training.
        """
        self._tracker, self._reference, self._extractor = tracker, reference, extractor
        self._batch_size, self._steps = batch_size, steps
        self._next = 0.0

    def image(self, key: str, image: np.ndarray, step: int) -> None:
        """Pass a picture on."""
        self._tracker.image(key, image, step)

    def metrics(self, metrics: dict[str, float], step: int) -> None:
        """Pass named values on, and print where they stand."""
        self._tracker.metrics(metrics, step)
        images = step * self._batch_size
        if "heldout/loss" in metrics and (step >= self._next or step == self._steps):
            self._next = step + self._steps / SENTENCES
            if sentence := self._reference.verdict(images, metrics["heldout/loss"]):
                tqdm.write(sentence)
        expected = self._reference.at(images, quick_fid(self._extractor))
        if "quick/fid" in metrics and expected is not None:
            tqdm.write(f"Quick FID {metrics['quick/fid']:.0f} at {images:,} images; the reference had {expected:.0f}.")


def watched(tracker: "Tracker", about: dict[str, Any], extractor: str) -> "Tracker | OnTrack":
    """Print where the curves stand on their way to the tracker, if there is a reference of the same recipe.

    Args:
        tracker: where the curves of the training go.
        about: the description of its model.
        extractor: of its quick scores.

    Raises:
        InputError: see `Reference.of`.
    """
    reference, training = Reference.of(about), about["training"]
    if reference is None or reference.differs:
        return tracker
    return OnTrack(tracker, reference, extractor, training["train"]["batch_size"], training["steps"])


def quick_fid(extractor: str) -> str:
    """Name of the column that holds the quick scores with this extractor."""
    return f"quick_fid_{extractor}"


def recipe_of(about: dict[str, Any]) -> dict[str, Any]:
    """What decides a curve, of a model's description: all but data, seed, and what changes the cost alone."""
    train = {key: value for key, value in about["training"]["train"].items() if key not in COSTS}
    # The same training for longer has the same curve, and more of it, unless it goes by its end.
    epochs = {"epochs": about["training"]["epochs"]} if _goes_by_its_end(train) else {}
    return {key: about[key] for key in (*COMPARABLE, "model")} | epochs | {"train": train}


def images_of(training: dict[str, Any]) -> int:
    """Images that a training, described so, sees from its beginning to its end."""
    return int(training["steps"] * training["train"]["batch_size"])


def _goes_by_its_end(train: dict[str, Any]) -> bool:
    return any(train.get(key) for key in ("lr_decay", "ema_length"))


def _stretch(about: dict[str, Any], entry: dict[str, Any]) -> float:
    training = about["training"]
    return images_of(training) / entry["images"] if _goes_by_its_end(training["train"]) else 1.0


def _differences(about: dict[str, Any], recipe: dict[str, Any]) -> list[str]:
    """What is another than in the recipe, trained on all of Flowers-102 as the references were."""
    found, wanted = flatten(recipe_of(about)), flatten(recipe)
    other = [f"`{key}` {found[key]} ({wanted.get(key)})" for key in found if found[key] != wanted.get(key)]
    training = about["training"]
    data = {key: training.get(key) for key in FLOWERS}
    if data != FLOWERS:
        other.insert(0, f"its images (`{data['source']}`)")
    holdout = training["heldout_images"] / (training["images"] + training["heldout_images"])
    if abs(holdout - HOLDOUT) > 0.02:
        other.insert(0, f"`data.holdout` {holdout:.2g} ({HOLDOUT})")
    return other


def _read() -> dict[str, tuple[dict[str, Any], pd.DataFrame]]:
    """What was trained, and the curve, by recipe; nothing where there is no file, as in the folder of a benchmark."""
    if not FILE.exists():
        return {}
    try:
        entries = json.loads(FILE.with_suffix(".json").read_text(encoding="utf-8"))
        curves = pd.read_csv(FILE).sort_values("images")
        return {name: (entry, curves[curves["recipe"] == name]) for name, entry in entries.items()}
    except (OSError, ValueError, KeyError, AttributeError) as error:
        raise InputError(f"{FILE}: cannot be read ({first_line(error)}); run `git checkout {FILE.parent}`") from None
