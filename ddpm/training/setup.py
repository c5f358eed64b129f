"""What is done once around a training: check it, build it, describe it, show it on the way, write its results."""

import math
from contextlib import suppress
from typing import Any, Protocol

import numpy as np
import pandas as pd
import torch

from ddpm.config import Config
from ddpm.data.dataset import PackedImages
from ddpm.data.pictures import enlarge, grid
from ddpm.diffusion.process import Diffusion
from ddpm.evaluation.quick_scores import QuickScores
from ddpm.model.model_file import unseen_classes
from ddpm.model.trained import DiffusionModel
from ddpm.network.unet import UNet, count_parameters
from ddpm.runtime.checkpoint import Checkpoint
from ddpm.runtime.devices import (
    allow_tf32,
    check_device,
    describe,
    keep_freed_memory,
    kind_of_device,
    make_deterministic,
    memory,
    memory_format,
)
from ddpm.runtime.distributed import ALONE, Group, processes
from ddpm.runtime.errors import MAKE_ROOM, InputError, memory_for
from ddpm.runtime.paths import PROCESSED, REPORTS
from ddpm.training.augment import LABELS
from ddpm.training.batches import place_images
from ddpm.training.loop import MEASURED_AT_ONCE, Callback, History, Training
from ddpm.training.noise_levels import loss_by_noise_level
from ddpm.training.step import STATE_BYTES

PREVIEW_IMAGES = 16
PREVIEW_STEPS = 25


class Gallery(Protocol):
    """Where previews and quick scores go."""

    def metrics(self, metrics: dict[str, float], step: int) -> None:
        """Take named values at a training step."""

    def image(self, key: str, image: np.ndarray, step: int) -> None:
        """Take a picture, (H, W, 3) uint8, at a training step."""


def check(config: Config, packed: PackedImages) -> None:
    """Refuse what can never be trained here.

    Raises:
        InputError: see `split` and `check_device`; there are more processes than images in a batch; or the device has
            less memory than the network and its optimiser need.
    """
    split(config, packed)
    check_device(config.device)
    if config.train.batch_size < (count := processes()):
        raise InputError(
            f"train.batch_size: {config.train.batch_size} images cannot be shared by {count} processes; "
            "raise it, or start fewer"
        )
    device, parameters = kind_of_device(config.device), planned_parameters(config, packed)
    if (needed := STATE_BYTES * parameters) > memory(device):
        raise InputError(
            f"model: {parameters / 1e9:.1f} billion parameters need {needed / 1e9:.0f} GB for training, and "
            f"the {device.type.upper()} has {memory(device) / 1e9:.0f} GB; lower model.channels, model.channel_mults "
            "or model.blocks"
        )


def split(config: Config, packed: PackedImages) -> tuple[np.ndarray, np.ndarray]:
    """Row numbers of the training images and of the held-out ones.

    Raises:
        InputError: no image is left for training, or they are not of the size that is wanted.
    """
    rows, heldout_rows = packed.split(config.data.holdout)
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
    return rows, heldout_rows


def unet_parts(config: Config, packed: PackedImages) -> tuple[Any, ...]:
    """What `UNet` is built from."""
    num_classes = len(packed.summary["class_names"]) if config.model.conditional else None
    channels = Diffusion(config.schedule, **config.diffusion.model_dump()).output_channels
    # Without label dropout nothing would teach the network what "no class" means.
    none_class = config.model.conditional and config.train.label_dropout > 0
    augment_labels = LABELS if config.train.augment else 0
    return config.model, config.data.image_size, num_classes, channels, none_class, augment_labels


def planned_parameters(config: Config, packed: PackedImages) -> int:
    """Number of parameters of the network, which takes no memory for it."""
    parts = unet_parts(config, packed)
    with torch.device("meta"):
        return count_parameters(UNet(*parts))


def needs(config: Config, group: Group) -> tuple[str, str]:
    """What may not fit into the memory, and what to do then: first that which changes the result by rounding alone."""
    parts, share = config.train.accumulate, math.ceil(config.train.batch_size / group.size)
    images = math.ceil(share / parts)
    if images > 1:
        return (
            f"train.batch_size: a step on {images} images at a time",
            f"set train.accumulate to {min(2 * parts, share)} (now {parts}), which makes that {math.ceil(images / 2)}; "
            "`python -m ddpm doctor` finds what fits",
        )
    if not config.train.checkpoint_activations:
        return "a step on a single image", "set train.checkpoint_activations to true"
    for narrower in range(config.model.channels // 16 * 8, 0, -8):
        with suppress(ValueError):  # of the heads of attention, say
            config.model.model_copy(update={"channels": narrower}).check(config.data.image_size)
            return "a step on a single image", f"set model.channels to {narrower}"
    return "a step on a single image", MAKE_ROOM


def prepare(config: Config, packed: PackedImages, device: torch.device, group: Group = ALONE) -> Training:
    """Put images and a fresh network on the device.

    Raises:
        InputError: see `split`.
    """
    rows, heldout_rows = split(config, packed)
    allow_tf32()
    if device.type == "cpu":
        keep_freed_memory()
    if config.train.deterministic:
        make_deterministic()
    labels = packed.items["label"].to_numpy()
    torch.manual_seed(config.seed)
    unet = UNet(*unet_parts(config, packed))
    train_set, heldout_set = place_images(device, packed.images, labels, rows, heldout_rows)
    return Training(
        unet.to(device, memory_format=memory_format(device)),  # type: ignore[call-overload]
        Diffusion(config.schedule, **config.diffusion.model_dump(), device=device),
        config.train,
        train_set,
        heldout_set,
        epochs=config.epochs,
        seed=config.seed,
        group=group,
    )


def describe_model(config: Config, packed: PackedImages, training: Training) -> dict[str, Any]:
    """Collect all that sampling needs to know of the model, and how it came to be."""
    names, labels = packed.summary["class_names"], packed.items["label"].to_numpy()
    rows, _ = split(config, packed)
    counts = np.bincount(labels[rows], minlength=len(names)).tolist()
    return {
        **config.model_dump(mode="json", include={"schedule", "diffusion", "model"}),
        "image_size": config.data.image_size,
        "class_names": names,
        "class_counts": counts,  # by these, sampling draws classes
        "training": {
            **config.model_dump(mode="json", include={"epochs", "seed", "train"}),
            "source": packed.summary["source"],
            "splits": sorted(config.data.splits) if packed.summary["source"] == "flowers102" else None,
            "images": len(training.train_set),
            "heldout_images": len(training.heldout_set),
            "skipped_images": len(packed.summary.get("skipped", [])),
            "steps": training.steps,
            "parameters": sum(tensor.numel() for tensor in training.unet.sampling_weights().values()),
        },
    }


def resume(
    training: Training, packed: PackedImages, description: dict[str, Any], checkpoint: Checkpoint | None
) -> None:
    """Print what will be trained, and resume from the checkpoint if there is one.

    Args:
        training: as `prepare` made it.
        packed: all images.
        description: see `describe_model`.
        checkpoint: of rank 0; the other processes have none, because other machines may not see its disk.
    """
    if checkpoint:
        size, images, heldout = (description["training"][key] for key in ("parameters", "images", "heldout_images"))
        print(
            f"Training {size / 1e6:.1f} M parameters on {images} images ({heldout} held out): "
            f"{training.steps} steps on {describe(training.device, training.group.size)}. "
            f"The images ({packed.images.nbytes / 1e6:.0f} MB) {training.train_set.place}."
        )
        if unseen := unseen_classes(description):
            print(f"No training image shows {', '.join(map(repr, unseen))}: the model will not know these classes.")
    if state := training.group.broadcast(checkpoint.load() if checkpoint else None):
        training.restore(state)
        if checkpoint:
            print(f"Going on from the checkpoint after step {training.progress.steps}.")


def callbacks_of(
    config: Config, packed: PackedImages, training: Training, description: dict[str, Any], gallery: Gallery
) -> list[tuple[int, Callback]]:
    """What is shown of a network in training, and after how many epochs each time: see `Training.run`."""

    def preview(unet: UNet, step: int) -> None:
        steps = min(PREVIEW_STEPS, config.diffusion.timesteps)
        with memory_for(
            f"a preview of {PREVIEW_IMAGES} images", "set tracking.preview_every to 0, which changes no result"
        ):
            images = DiffusionModel(unet, description).sample(PREVIEW_IMAGES, steps=steps, seed=config.seed)
        gallery.image("samples", grid(enlarge(images), columns=4), step)

    if not config.fid.every:
        return [(config.tracking.preview_every, preview)]
    train_rows, _ = split(config, packed)
    quick_scores = QuickScores(config.fid, packed.images, train_rows, training.device, config.seed)

    def score(unet: UNet, step: int) -> None:
        epoch = step * config.train.batch_size / len(training.train_set)
        gallery.metrics(quick_scores(DiffusionModel(unet, description)) | {"quick/epoch": epoch}, step)

    return [(config.tracking.preview_every, preview), (config.fid.every, score)]


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
    table = loss_by_noise_level(training.ema.model, training.diffusion, images, MEASURED_AT_ONCE)
    table.to_csv(REPORTS / "curves" / "noise_levels.csv", index=False)
