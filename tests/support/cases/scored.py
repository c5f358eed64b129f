"""Samples and features of real images, damaged between the stages."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from tests.support.cases.case import Case, Place
from tests.support.cases.packed import packed

SAMPLES, REFERENCE = Path("data/samples"), Path("data/reference")


def ready(change: Callable[[], object] = lambda: None, **params: object) -> Callable[[Place], None]:
    """All that the stage `fid` reads, then changed."""

    def prepare(place: Place) -> None:
        import stages.fid

        packed()(place)
        place.patch.setattr(stages.fid, "stage_key", lambda *_: "a" * 64)  # without a pipeline
        place.set("fid.extractor", "efficientnet_lite0")
        for key, value in params.items():
            place.set(key.replace("__", "."), value)
        for folder in (SAMPLES, REFERENCE):
            folder.mkdir(parents=True)
        np.save(SAMPLES / "samples.npy", np.zeros((5, 16, 16, 3), np.uint8))
        (SAMPLES / "origin.json").write_text(json.dumps({"model_sha256": "0", "options": {}}))
        for name in ("features", "mirrored"):
            np.save(REFERENCE / f"{name}.npy", np.zeros((6, 1280), np.float32))
        (REFERENCE / "reference.json").write_text(json.dumps({"extractor": "efficientnet_lite0"}))
        change()

    return prepare


def text(path: Path, content: str) -> Callable[[], object]:
    return lambda: path.write_text(content)


def array(path: Path, content: np.ndarray) -> Callable[[], object]:
    return lambda: np.save(path, content)


AGAIN = "run `dvc repro --force {}`"
SCORED = [
    Case(
        "features of the real images cut short",
        ready(text(REFERENCE / "features.npy", "")),
        f"data/reference/features.npy: cannot be read (…); {AGAIN.format('reference')}",
        run="fid",
    ),
    Case(
        "features of another shape",
        ready(array(REFERENCE / "features.npy", np.zeros(6, np.float32))),
        "data/reference/features.npy: found float32 of shape (6,), not 2 dimensions of float32; "
        + AGAIN.format("reference"),
        run="fid",
    ),
    Case(
        "features of other images",
        ready(array(REFERENCE / "features.npy", np.zeros((4, 1280), np.float32))),
        "data/reference: holds 4 images, not the 6 of data/processed; run `dvc repro`",
        run="fid",
    ),
    Case(
        "mirrored features of other images",
        ready(array(REFERENCE / "mirrored.npy", np.zeros((4, 1280), np.float32))),
        "data/reference: holds 4 images, not the 6 of data/processed; run `dvc repro`",
        run="fid",
    ),
    Case(
        "the record of the features is no JSON",
        ready(text(REFERENCE / "reference.json", "{")),
        f"data/reference/reference.json: cannot be read (…); {AGAIN.format('reference')}",
        run="fid",
    ),
    Case(
        "features of another network",
        ready(text(REFERENCE / "reference.json", '{"extractor": "inception"}')),
        "data/reference: holds features of inception, not of efficientnet_lite0; run `dvc repro reference`",
        run="fid",
    ),
    Case(
        "samples that are no images",
        ready(array(SAMPLES / "samples.npy", np.zeros((5, 16, 16, 3)))),
        "data/samples/samples.npy: found float64 of shape (5, 16, 16, 3), not 4 dimensions of uint8; "
        + AGAIN.format("sample"),
        run="fid",
    ),
    Case(
        "`fid.reference: heldout` with 1 image held out of 6",
        ready(fid__reference="heldout"),
        "fid.reference: heldout are 1 images, the scores need 4; choose all",
        run="fid",
    ),
    Case(
        "scores that lack something",
        lambda place: (
            packed()(place),
            Path("models").mkdir(),
            Path("models/config.json").write_text('{"training": {}, "schedule": "", "diffusion": {}, "model": {}}'),
            Path("reports/scores").mkdir(parents=True),
            Path("reports/scores/scores.json").write_text("[]"),
        ),
        f"reports/scores/scores.json: lacks extractor, model_sha256, scores, weights; {AGAIN.format('fid')}",
        run="report",
    ),
]
