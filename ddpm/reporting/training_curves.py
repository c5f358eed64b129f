"""What the report shows and says of a training: its curves, where it stands, its last losses."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ddpm.reporting.plots import save_curves, save_noise_levels
from ddpm.reporting.reference_curves import Reference

POINTS = 10  # of the training curve, whose mean is its last loss: the very last may be of one batch alone


def training_facts(model: dict[str, Any], curves: Path, pictures: Path) -> dict[str, object]:
    """Draw the curves of a training; returns what the report says of them.

    Args:
        model: the content of models/config.json.
        curves: the folder that the train stage has written.
        pictures: the folder for curves.png and noise_levels.png.

    Returns:
        standing: a paragraph on where it stands against the reference curve of its recipe, or None.
        last: train, heldout (None without such images) and steps, the optimisation steps of which train is the mean.

    Raises:
        InputError: see `Reference.of`.
    """
    train, heldout = pd.read_csv(curves / "train.csv"), pd.read_csv(curves / "heldout.csv")
    last_heldout, standing, beside = None, None, None
    if len(heldout):
        last_heldout = float(heldout["loss"].iloc[-1])
        if reference := Reference.of(model):
            standing = reference.paragraph(model["training"], last_heldout)
            beside = reference.drawn(model["training"])
    save_curves(train, heldout, pictures / "curves.png", beside)
    save_noise_levels(pd.read_csv(curves / "noise_levels.csv"), pictures / "noise_levels.png")
    steps = train["step"].diff().fillna(train["step"]).tail(POINTS)
    last = float(np.average(train["loss"].tail(POINTS), weights=steps))
    return {
        "standing": standing,
        "last": {"train": last, "heldout": last_heldout, "steps": int(steps.sum())},
    }
