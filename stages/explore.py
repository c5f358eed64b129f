"""A walk through the data and the forward process: what there is to see before any network is trained."""

import numpy as np

from ddpm.config import Config
from ddpm.data.dataset import load_packed
from ddpm.data.pictures import enlarge, grid, save_png
from ddpm.reporting import data_plots, schedule_plots
from ddpm.reporting.explore import CLEAN, NOISE, data_facts, loss_weights, marks, schedule_facts
from ddpm.reporting.page import write_pages
from ddpm.reporting.report import render
from ddpm.runtime.paths import PROCESSED, REPORTS
from stages import run

PICTURES = REPORTS / "explore"
FORWARD_IMAGES = 3  # images that are shown on their way to noise
HELDOUT_IMAGES = 24  # held-out images that are shown


def main(config: Config) -> None:
    """Read data/processed/; write explore.md, explore.html and explore/ in reports/."""
    packed = load_packed(PROCESSED)
    train_rows, heldout_rows = packed.split(config.data.holdout)
    timesteps = config.diffusion.timesteps
    # Evenly spaced, because neighbouring images often are of one class.
    forward_rows = np.linspace(0, len(packed.items) - 1, FORWARD_IMAGES + 2).round().astype(int)[1:-1]

    data_plots.save_all(packed, PICTURES)
    schedule_plots.save_curves(timesteps, PICTURES)
    for number, row in enumerate(forward_rows, start=1):
        schedule_plots.save_forward_process(packed.images[row], timesteps, PICTURES / f"forward_{number}.png")
    schedule_plots.save_batch(packed, train_rows, timesteps, config.train.flip, PICTURES / "batch.png")
    shown = packed.images[heldout_rows[:HELDOUT_IMAGES]] if len(heldout_rows) else np.full_like(packed.images[:1], 255)
    save_png(grid(enlarge(shown), columns=8), PICTURES / "heldout.png")  # white, and on no page, where none is held out
    packed.items.iloc[heldout_rows][["id", "label"]].to_csv(PICTURES / "heldout.csv", index=False, lineterminator="\n")

    data = data_facts(packed, heldout_rows)
    page = render(
        {
            "data": data,
            "forward": len(forward_rows),
            "trained": len(train_rows),
            "heldout": len(heldout_rows),
            "heldout_shown": HELDOUT_IMAGES,
            "timesteps": timesteps,
            "marks": marks(timesteps),
            "schedules": schedule_facts(timesteps, data["variance"]),
            "clean": CLEAN,
            "noise": NOISE,
            "weights": loss_weights(),
            "flip": config.train.flip,
        },
        "explore.md.j2",
    )
    write_pages(page, REPORTS, "explore")


if __name__ == "__main__":
    run(main)
