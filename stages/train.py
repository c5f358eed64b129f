"""Train the network on the packed images; keep its averaged weights and the curves."""

import pandas as pd
import torch

from ddpm.config import Config
from ddpm.dataset import load_packed, split_holdout
from ddpm.devices import choose_device, describe, memory_format
from ddpm.diffusion import Diffusion
from ddpm.errors import InputError
from ddpm.lineage import stage_key
from ddpm.model import DiffusionModel, save_model, to_uint8
from ddpm.paths import MODELS, PROCESSED, REPORTS
from ddpm.pictures import grid
from ddpm.tracking import training_run
from ddpm.training import ImageSet, Training
from ddpm.unet import UNet
from stages import run

PREVIEW_IMAGES = 16
PREVIEW_STEPS = 25


def main(config: Config) -> None:
    """Read data/processed; write models/ and reports/curves/."""
    packed = load_packed(PROCESSED)
    rows, heldout_rows = split_holdout(packed.items["id"].tolist(), config.data.holdout)
    if len(rows) == 0:
        raise InputError(f"data.holdout: {config.data.holdout} leaves none of {len(packed.items)} images for training")
    device = choose_device(config.device)
    labels = packed.items["label"].to_numpy()

    torch.manual_seed(config.seed)
    class_names = packed.summary["class_names"]
    unet = UNet(config.model, config.data.image_size, len(class_names) if config.model.conditional else None)
    unet = unet.to(device, memory_format=memory_format(device))  # type: ignore[call-overload]
    diffusion = Diffusion(config.schedule, config.diffusion.timesteps, config.diffusion.target, device)
    training = Training(
        unet,
        diffusion,
        config.train,
        ImageSet.on(device, packed.images[rows], labels[rows]),
        ImageSet.on(device, packed.images[heldout_rows], labels[heldout_rows]),
        epochs=config.epochs,
        seed=config.seed,
    )
    parameters = sum(p.numel() for p in unet.parameters())
    print(
        f"Training {parameters / 1e6:.1f} M parameters on {len(rows)} images ({len(heldout_rows)} held out): "
        f"{training.steps} steps of {config.train.batch_size} on {describe(device)}."
    )
    key = stage_key("train", config.model_dump(mode="json"))
    description = {
        **config.model_dump(mode="json", include={"schedule", "diffusion", "model"}),
        "image_size": config.data.image_size,
        "class_names": class_names,
        "class_counts": packed.summary["class_counts"],
        "training": {
            **config.model_dump(mode="json", include={"epochs", "seed", "train"}),
            "source": packed.summary["source"],
            "images": len(rows),
            "heldout_images": len(heldout_rows),
            "steps": training.steps,
            "parameters": parameters,
            "key": key,
        },
    }
    with training_run(config, key) as tracker:
        tracker.tags({"device": describe(device)})

        def preview(ema: UNet, step: int) -> None:
            images = to_uint8(
                list(
                    DiffusionModel(ema, description).trajectory(
                        range(PREVIEW_IMAGES), steps=min(PREVIEW_STEPS, diffusion.timesteps), seed=config.seed
                    )
                )[-1]
            )
            tracker.image("samples", grid(images, columns=4), step)

        history = training.run(tracker, preview, config.tracking.preview_every)
        save_model(MODELS, training.ema.model.state_dict(), description)
        tracker.artifacts(MODELS, "model")
    curves = REPORTS / "curves"
    curves.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(history.train).to_csv(curves / "train.csv", index=False)
    heldout = pd.DataFrame(history.heldout, columns=["step", "epoch", "loss"])
    heldout.to_csv(curves / "heldout.csv", index=False)


if __name__ == "__main__":
    run(main)
