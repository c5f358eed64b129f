"""Train the network on the packed images; keep its averaged weights and the curves."""

from typing import Any

import pandas as pd
import torch

from ddpm.checkpoint import Checkpoint, checkpoint_for
from ddpm.checksums import checksum
from ddpm.config import Config
from ddpm.dataset import PackedImages, load_packed, split_holdout
from ddpm.devices import choose_device, describe, make_deterministic, memory, memory_format
from ddpm.diffusion import Diffusion
from ddpm.errors import InputError
from ddpm.lineage import stage_key
from ddpm.model import DiffusionModel
from ddpm.model_file import save_model
from ddpm.noise_levels import loss_by_noise_level
from ddpm.paths import MODELS, PROCESSED, REPORTS
from ddpm.pictures import enlarge, grid
from ddpm.tracking import training_run
from ddpm.training import History, ImageSet, Training
from ddpm.unet import UNet
from stages import run

PREVIEW_IMAGES = 16
PREVIEW_STEPS = 25
BYTES_PER_PARAMETER = 20  # float32: the weight, its gradient, its average, and AdamW's two moments


def main(config: Config) -> None:
    """Read data/processed/; write models/ and reports/curves/."""
    packed = load_packed(PROCESSED)
    training = prepare(config, packed)
    key = stage_key("train", config.model_dump(mode="json"))
    description = describe_model(config, packed, training)
    print(
        f"Training {description['training']['parameters'] / 1e6:.1f} M parameters on {len(training.train_set)} images "
        f"({len(training.heldout_set)} held out): {training.steps} steps on {describe(training.device)}."
    )
    with checkpoint_for(key) as checkpoint:
        state = checkpoint.load()
        if state:
            training.restore(state)
            print(f"Going on from the checkpoint after step {training.progress.steps}.")
        train(config, training, description, key, checkpoint)


def train(config: Config, training: Training, description: dict[str, Any], key: str, checkpoint: Checkpoint) -> None:
    """Train from where `training` is, and write the outputs."""
    with training_run(config, key, resumed=training.progress.steps > 0) as tracker:
        tracker.tags({"device": describe(training.device), "data.sha256": checksum(PROCESSED / "images.npy")})

        def preview(unet: UNet, step: int) -> None:
            steps = min(PREVIEW_STEPS, config.diffusion.timesteps)
            images = DiffusionModel(unet, description).sample(PREVIEW_IMAGES, steps=steps, seed=config.seed)
            tracker.image("samples", grid(enlarge(images), columns=4), step)

        # Previews go to MLflow alone, so without it they would be painted for nobody.
        preview_every = config.tracking.preview_every if config.tracking.enabled else 0
        history = training.run(tracker, preview, preview_every, checkpoint)
        save_model(MODELS, training.ema.model.state_dict(), description)
        save_curves(history, key)
        save_noise_levels(training)
        tracker.model(MODELS)


def prepare(config: Config, packed: PackedImages) -> Training:
    """Put images and a fresh network on the device.

    Raises:
        InputError: no image is left for training, the device cannot be had, or its memory cannot hold the network.
    """
    rows, heldout_rows = split_holdout(packed.items["id"].tolist(), config.data.holdout)
    side = packed.images.shape[1]
    if side != config.data.image_size:
        raise InputError(
            f"{PROCESSED}: holds images of {side} pixels, data.image_size is {config.data.image_size}; run `dvc repro`"
        )
    if len(rows) == 0:
        raise InputError(
            f"data.holdout: {config.data.holdout} leaves none of {len(packed.items)} images for training; "
            "lower it, or add images"
        )
    if config.train.deterministic:
        make_deterministic()
    device = choose_device(config.device)
    labels = packed.items["label"].to_numpy()
    num_classes = len(packed.summary["class_names"]) if config.model.conditional else None
    diffusion = Diffusion(config.schedule, **config.diffusion.model_dump(), device=device)
    # Without label dropout nothing would teach the network what "no class" means.
    none_class = config.model.conditional and config.train.label_dropout > 0
    parts = (config.model, config.data.image_size, num_classes, diffusion.output_channels, none_class)
    with torch.device("meta"):  # a network without memory, to see how much it needs
        parameters = sum(parameter.numel() for parameter in UNet(*parts).parameters())
    if (needed := BYTES_PER_PARAMETER * parameters) > memory(device):
        raise InputError(
            f"model: {parameters / 1e9:.1f} billion parameters need {needed / 1e9:.0f} GB for training, and "
            f"the {device.type.upper()} has {memory(device) / 1e9:.0f} GB; lower model.channels, model.channel_mults "
            "or model.blocks"
        )
    torch.manual_seed(config.seed)
    unet = UNet(*parts)
    return Training(
        unet.to(device, memory_format=memory_format(device)),  # type: ignore[call-overload]
        diffusion,
        config.train,
        ImageSet.on(device, packed.images[rows], labels[rows]),
        ImageSet.on(device, packed.images[heldout_rows], labels[heldout_rows]),
        epochs=config.epochs,
        seed=config.seed,
    )


def describe_model(config: Config, packed: PackedImages, training: Training) -> dict[str, Any]:
    """Collect all that sampling needs to know of the model, and how it came to be."""
    return {
        **config.model_dump(mode="json", include={"schedule", "diffusion", "model"}),
        "image_size": config.data.image_size,
        "class_names": packed.summary["class_names"],
        "class_counts": packed.summary["class_counts"],
        "training": {
            **config.model_dump(mode="json", include={"epochs", "seed", "train"}),
            "source": packed.summary["source"],
            "splits": config.data.splits if packed.summary["source"] == "flowers102" else None,
            "images": len(training.train_set),
            "heldout_images": len(training.heldout_set),
            "skipped_images": len(packed.summary.get("skipped", [])),
            "steps": training.steps,
            "parameters": sum(parameter.numel() for parameter in training.unet.parameters()),
        },
    }


def save_curves(history: History, key: str) -> None:
    """Write the loss curves as tables, and the key by which the report finds the training's MLflow run.

    The key is not in models/, because it also changes with an edit of the code that leaves the model as it is, after
    which nothing has to be sampled again.
    """
    folder = REPORTS / "curves"
    folder.mkdir(parents=True, exist_ok=True)
    pd.DataFrame(history.train).to_csv(folder / "train.csv", index=False)
    # Named columns, because without held-out images there are no rows to name them.
    pd.DataFrame(history.heldout, columns=["step", "epoch", "loss"]).to_csv(folder / "heldout.csv", index=False)
    (folder / "key.txt").write_text(key + "\n", encoding="utf-8")


def save_noise_levels(training: Training) -> None:
    """Write the averaged network's loss by noise level, on held-out images or else on those of the training."""
    images = training.heldout_set if len(training.heldout_set) else training.train_set
    table = loss_by_noise_level(training.ema.model, training.diffusion, images, training.config.batch_size)
    table.to_csv(REPORTS / "curves" / "noise_levels.csv", index=False)


if __name__ == "__main__":
    run(main)
