"""What test_distributed.py has torchrun start: the same small training in each process."""

import json
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

import stages  # noqa: F401, which lets a process end with its launcher
from ddpm.config import ModelConfig
from ddpm.runtime.distributed import ALONE, Group, process_group
from ddpm.runtime.errors import InputError, guarded
from ddpm.runtime.signals import asked, listen
from ddpm.training.loop import History
from tests.support.trainings import BreakOffError, KeptEvery, Recorder, die_at, disks, make


def prepare(group: Group = ALONE, compiled: bool = False):
    """Batches of 10, which neither 3 nor 4 processes can share evenly, with all that is random but dropout."""
    model = ModelConfig(
        channels=16, channel_mults=[1, 2], blocks=1, attention=[8], head_channels=16, dropout=0.0, conditional=True
    )
    images = disks(30)
    options = {"epochs": 4, "variance": "learned", "batch_size": 10, "log_every": 2, "label_dropout": 0.3}
    options |= {"augment": 0.3, "min_snr": 5.0, "compile": compiled}
    if group.size > 2:
        options["accumulate"] = 2  # of shares of 2 and 3 images
    return make(model, images, images[:8], group=group, **options)


def train(
    group: Group,
    folder: Path,
    stop: int | None = None,
    nan: int = 0,
    sigterm: int = 0,
    waits: bool = False,
    compiled: bool = False,
) -> History | None:
    """Train from the checkpoint, if there is one, to the end.

    stop: every process breaks off before this step.
    nan: the loss of this step is NaN in the last process.
    sigterm: in this step the last process is sent a SIGTERM.
    waits: the third step takes until this process is asked to end.
    """
    training, checkpoint = prepare(group, compiled), KeptEvery(folder, 1)
    if state := group.broadcast(checkpoint.load() if group.rank == 0 else None):
        training.restore(state)
    die_at(training, stop)
    take, losses = training.train_step, training.optimisation.losses
    is_last, number = group.rank == group.size - 1, 0

    def train_step(step: int) -> torch.Tensor:
        nonlocal number
        number = step + 1
        if is_last and number == sigterm:
            os.kill(os.getpid(), signal.SIGTERM)
        while waits and number == 3 and not asked():
            time.sleep(0.01)
        return take(step)

    def broken_losses(*batch: torch.Tensor) -> list[torch.Tensor]:
        return [terms * (float("nan") if is_last and number == nan else 1) for terms in losses(*batch)]

    training.train_step = train_step
    if nan:
        training.optimisation.losses = broken_losses
    try:
        if group.rank == 0:
            return training.run(Recorder(), checkpoint)
        training.follow()
    except BreakOffError:
        pass
    return None


def main(folder: Path, fault: int | None = None, endless: bool = False, **scene: Any) -> None:
    with process_group() as group:
        if endless:
            (folder / f"pid{group.rank}").write_text(str(os.getpid()))
            while True:
                group.mean(torch.zeros(1))
                time.sleep(0.01 * group.rank)
        if fault == group.rank:
            raise InputError("this is what went wrong")
        history = train(group, folder, **scene)
        if history:
            (folder / "history.json").write_text(json.dumps(history.train + history.heldout))


if __name__ == "__main__":
    torch.set_num_threads(1)
    listen()
    scene = json.loads(os.environ["SCENE"])
    guarded(lambda: main(Path(scene.pop("folder")), **scene))
