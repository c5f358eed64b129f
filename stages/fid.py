"""Score the samples against the real images."""

import numpy as np
import torch

from ddpm.config import Config
from ddpm.data.dataset import load_packed
from ddpm.evaluation.memorisation import memorisation
from ddpm.evaluation.protocol import evaluate
from ddpm.evaluation.results import features_of, reference_features, write
from ddpm.evaluation.scores import MIN_IMAGES
from ddpm.reporting.score_plots import save_neighbours
from ddpm.runtime.checkpoint import discard
from ddpm.runtime.devices import choose_device
from ddpm.runtime.errors import MAKE_ROOM, InputError, memory_for
from ddpm.runtime.lineage import stage_key
from ddpm.runtime.paths import PROCESSED, REFERENCE, REPORTS, SAMPLES
from ddpm.runtime.stage_files import load_array
from stages import run

SHOWN = 8  # samples beside their nearest training images


def main(config: Config) -> None:
    """Read data/reference/, data/samples/ and data/processed/; write reports/fid.json and reports/scores/."""
    discard(stage_key("sample", config.model_dump(mode="json")))  # DVC has stored the samples
    device = choose_device(config.device)
    packed = load_packed(PROCESSED)
    train_rows, heldout_rows = packed.split(config.data.holdout)
    features, mirrored = (reference_features(config.fid, name) for name in ("features", "mirrored"))
    for found in (features, mirrored):
        if len(found) != (count := len(packed.images)):
            raise InputError(f"{REFERENCE}: holds {len(found)} images, not the {count} of {PROCESSED}; run `dvc repro`")
    known = torch.from_numpy(features).to(device)
    train, heldout = known[train_rows], known[heldout_rows]
    real = {"all": known, "train": train, "heldout": heldout}[config.fid.reference]
    if len(real) < MIN_IMAGES:
        raise InputError(
            f"fid.reference: {config.fid.reference} are {len(real)} images, the scores need {MIN_IMAGES}; choose all"
        )
    samples = load_array(SAMPLES / "samples.npy", 4, np.uint8, "sample")
    fake = torch.from_numpy(features_of(samples, config.fid, device)).to(device)
    with memory_for(f"the comparison of {len(fake)} samples with {len(real)} images", MAKE_ROOM):
        evaluation = evaluate(real, fake)
        views = torch.cat([train, torch.from_numpy(mirrored[train_rows]).to(device)])
        copies = memorisation(views, heldout, fake, SHOWN)
    folder = REPORTS / "scores"
    neighbours = train_rows[copies.neighbours]
    save_neighbours(samples[copies.samples], packed.images, train_rows, neighbours, folder / "nearest.png")
    write(config.fid, evaluation, copies, {"samples": len(fake), "reference_images": len(real)})


if __name__ == "__main__":
    run(main)
