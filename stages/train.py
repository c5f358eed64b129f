"""Train the network on the packed images; keep its averaged weights and the curves."""

from contextlib import nullcontext
from typing import Any

from ddpm.config import Config
from ddpm.data.dataset import PackedImages, load_packed
from ddpm.model.model_file import save_model
from ddpm.reporting.reference_curves import watched
from ddpm.runtime.checkpoint import Checkpoint, checkpoint_for
from ddpm.runtime.checksums import checksum
from ddpm.runtime.devices import choose_device, describe
from ddpm.runtime.distributed import process_group, spread
from ddpm.runtime.errors import MAKE_ROOM, memory_for
from ddpm.runtime.lineage import stage_key
from ddpm.runtime.paths import MODELS, PROCESSED
from ddpm.tracking.runs import training_run
from ddpm.training import setup
from ddpm.training.loop import Training
from stages import run


def main(config: Config) -> None:
    """Read data/processed/; write models/ and reports/curves/."""
    packed = load_packed(PROCESSED)
    setup.check(config, packed)  # before the other processes start, so that a fault is reported once
    spread("stages.train")
    key = stage_key("train", config.model_dump(mode="json"))
    device = choose_device(config.device)
    with process_group(device) as group, checkpoint_for(key) if group.rank == 0 else nullcontext() as checkpoint:
        with memory_for("the network with its images", f"lower model.channels, or {MAKE_ROOM}"):
            training = setup.prepare(config, packed, device, group)
        description = setup.describe_model(config, packed, training)
        setup.resume(training, packed, description, checkpoint)
        with memory_for(*setup.needs(config, group)):
            if checkpoint:
                train(config, packed, training, description, key, checkpoint)
            else:
                training.follow()


def train(
    config: Config, packed: PackedImages, training: Training, about: dict[str, Any], key: str, checkpoint: Checkpoint
) -> None:
    """Train from where `training` is, and write the outputs."""
    with training_run(config, key, resumed=training.progress.steps > 0) as tracker:
        device = describe(training.device, training.group.size)
        sha256 = checksum(PROCESSED / "images.npy")
        tracker.tags({"device": device, "data.sha256": sha256})
        tracker.dataset(config.data, packed.summary, sha256, "training")
        gallery = watched(tracker, about, config.fid.extractor)
        # Previews and quick scores are MLflow's curves and pictures.
        callbacks = setup.callbacks_of(config, packed, training, about, gallery) if config.tracking.enabled else []
        history = training.run(gallery, checkpoint, *callbacks)
        save_model(MODELS, training.ema.model.sampling_weights(), about)
        setup.save_curves(history, key)
        setup.save_noise_levels(training)
        tracker.model(MODELS, checkpoint.folder)


if __name__ == "__main__":
    run(main)
