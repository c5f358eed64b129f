"""Generate the images that will be scored, and the pictures that people look at."""

from ddpm.config import Config
from ddpm.model.generation import batch_images, generate, in_order, save
from ddpm.model.trained import load_model
from ddpm.runtime.checkpoint import checkpoint_for, discard
from ddpm.runtime.devices import check_device
from ddpm.runtime.distributed import process_group, spread
from ddpm.runtime.lineage import stage_key
from ddpm.runtime.paths import MODELS, REPORTS
from stages import run


def main(config: Config) -> None:
    """Read models/; write data/samples/ and reports/samples/."""
    if (train_key := REPORTS / "curves" / "key.txt").exists():
        discard(train_key.read_text(encoding="utf-8").strip())  # DVC has stored the model
    spread("stages.sample", lambda: check(config))
    model = load_model(MODELS, config.device)
    options = config.sample.model_dump(exclude={"n", "batch_size"}) | {"seed": config.seed}
    key = stage_key("sample", config.model_dump(mode="json"))
    size = batch_images(model, config.sample)
    with (
        process_group() as group,
        checkpoint_for(key, f"-{group.rank}-of-{group.size}-by-{size}") as checkpoint,
    ):
        batches = group.gather(generate(model, config.sample, size, options, checkpoint, group))
        if group.rank == 0:
            save(in_order(batches), model, options)


def check(config: Config) -> None:
    """Refuse what can never be sampled from, without a word about the device.

    Raises:
        InputError: see `check_device` and `load_model`.
    """
    check_device(config.device)
    load_model(MODELS, "cpu")


if __name__ == "__main__":
    run(main)
