"""The training loop, from the first step to the last: curves, previews, checkpoints. A step is in `step`."""

import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from ddpm.config import TrainConfig
from ddpm.diffusion.process import Diffusion
from ddpm.network.unet import UNet
from ddpm.runtime import signals
from ddpm.runtime.checkpoint import Checkpoint
from ddpm.runtime.distributed import ALONE, Group
from ddpm.runtime.errors import RunError
from ddpm.runtime.forecast import forecast
from ddpm.runtime.progress import progress_bar
from ddpm.training.batches import ImageSet
from ddpm.training.divergence import Watch, is_finite
from ddpm.training.step import TrainStep

MAX_EVALUATIONS = 100  # points of the held-out curve; each costs a forward pass over the held-out images
FORECAST_STEPS = 5  # after the first, which takes longer
# Images in the network at a time when it is measured: always as many, so that neither train.batch_size nor accumulate
# changes what is measured, and so few that they need less memory than a step with 4.
MEASURED_AT_ONCE = 16
Callback = Callable[[UNet, int], None]


class Reporter(Protocol):
    """Where live curves go."""

    def metrics(self, metrics: dict[str, float], step: int) -> None:
        """Take named values at a training step."""


@dataclass
class History:
    """The curves of a training: one dictionary per point."""

    train: list[dict[str, float]] = field(default_factory=list)
    heldout: list[dict[str, float]] = field(default_factory=list)


@dataclass
class Progress:
    """How far a training has come: what changes besides the weights.

    steps: optimisation steps done.
    logged: steps done at the last point of the training curve.
    sums: float32 on the device, sums of `Training.curves` over the steps since; reading them waits for a GPU.
    history: the curves so far.
    """

    steps: int
    logged: int
    sums: Tensor
    history: History


class Training:
    """One training, from first to last step."""

    def __init__(
        self,
        unet: UNet,
        diffusion: Diffusion,
        config: TrainConfig,
        train_set: ImageSet,
        heldout_set: ImageSet,
        *,
        epochs: int,
        seed: int,
        group: Group = ALONE,
    ) -> None:
        """Prepare a training.

        Args:
            unet: the network, on the device of the images.
            diffusion: on the same device.
            config: the optimisation.
            train_set: at least one image.
            heldout_set: may be empty; then there is no held-out curve.
            epochs: passes over train_set.
            seed: decides data order, noise and what is dropped.
            group: the processes that share each batch; all must have started with the same weights.
        """
        self.unet, self.diffusion, self.config = unet, diffusion, config
        self.train_set, self.heldout_set = train_set, heldout_set
        self.epochs, self.seed, self.group = epochs, seed, group
        self.steps = max(1, math.ceil(epochs * len(train_set) / config.batch_size))
        self.optimisation = TrainStep(unet, diffusion, config, train_set, seed, self.steps, group)
        self.ema, self.device = self.optimisation.ema, self.optimisation.device
        self.curves = self.optimisation.curves
        self.progress = Progress(0, 0, torch.zeros(len(self.curves), device=self.device), History())
        self._watch = Watch(self.curves, self.device)
        self._saved = 0  # steps in the newest checkpoint

    def run(self, reporter: Reporter, checkpoint: Checkpoint, *callbacks: tuple[int, Callback]) -> History:
        """Train to the end, from the beginning or from the checkpoint.

        Args:
            reporter: is given the curves, learning rate, images/s and the held-out loss as they come.
            checkpoint: where the state is kept now and then, and at the end.
            callbacks: what is called with the averaged network and the step number, to generate a few images for one,
                and after how many epochs each time; 0 for never.

        Raises:
            RunError: the loss, or another number of the training, is not finite; no such state is kept.
            SystemExit: a signal asks to end, see `signals`; then the checkpoint holds all steps so far.
        """
        evaluations = self._steps_of(min(self.epochs, MAX_EVALUATIONS)) if len(self.heldout_set) else set()
        planned = [(self._steps_after(every), callback) for every, callback in callbacks if every]
        pauses = evaluations.union(*(steps for steps, _ in planned))
        progress, batch_size = self.progress, self.config.batch_size
        begin = first = progress.steps
        started = warm = time.perf_counter()
        bar = progress_bar(self.steps * batch_size, "train", initial=first * batch_size, unit_scale=True)
        with signals.patience(), bar:
            for done in range(first + 1, self.steps + 1):
                progress.sums += (values := self.train_step(done - 1))
                self._watch.look(done, values)
                progress.steps = done
                bar.update(batch_size)
                if self.optimisation.compiled and done == begin + 1:
                    bar.write(f"torch.compile took {self._now() - started:.0f} s, the first step included.")
                    first, started = done, time.perf_counter()
                if done == begin + 1:
                    warm = self._now()
                if done == begin + 1 + FORECAST_STEPS:
                    seconds = (self._now() - warm) / FORECAST_STEPS
                    bar.write(f"The training takes {forecast(self.steps - done, seconds, self.device)}.")
                asked = self.group.highest(signals.asked())
                is_point = done % self.config.log_every == 0 or done == self.steps
                is_kept = checkpoint.due() or asked > 0 or done == self.steps
                if is_point or is_kept or done in pauses:
                    self._check()
                if is_point:
                    rate = (done - first) * batch_size / (self._now() - started)
                    bar.set_postfix(loss=f"{self._log(reporter, rate):.4f}", refresh=False)
                    first, started = done, time.perf_counter()
                if done in evaluations:
                    self._evaluate(reporter, done)
                for steps, callback in planned:
                    if done in steps:
                        callback(self.ema.model, done)
                if is_kept and checkpoint.save(self.state()):
                    self._saved = done
                if asked:
                    self.group.highest(0)  # lets go of the others, see `follow`
                    signals.end(asked, self._kept())
                if done in pauses:
                    first, started = done, time.perf_counter()  # images/s is that of training alone
        return progress.history

    def follow(self) -> None:
        """Take part in a training that rank 0 runs: rank 0 alone measures, generates and writes."""
        with signals.patience():
            for step in range(self.progress.steps, self.steps):
                self.train_step(step)
                if asked := self.group.highest(signals.asked()):
                    self.group.highest(0)  # once this one ends, a batch system ends all: wait for the checkpoint
                    signals.end(asked)

    def state(self) -> dict[str, Any]:
        """All that a later process needs to go on exactly as this one would have; see `restore`."""
        return self.optimisation.state() | {"progress": asdict(self.progress)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where the training that gave this `state` was; it must have had the same parameters and images."""
        self.optimisation.restore(state)
        saved = state["progress"]
        sums, history = saved["sums"].to(self.device), History(**saved["history"])
        self.progress = Progress(saved["steps"], saved["logged"], sums, history)
        self._saved = saved["steps"]

    def train_step(self, step: int) -> Tensor:
        """Take one optimisation step; returns `curves`, see `TrainStep`."""
        return self.optimisation(step)

    @torch.no_grad()
    def heldout_loss(self) -> float:
        """Mean loss of the averaged network on the held-out images, with the same noise in every training."""
        noise = torch.Generator().manual_seed(0)  # on the CPU, so that it is the same for every device
        count, total = len(self.heldout_set), 0.0
        # Evenly spaced, and shuffled because neighbouring images often are of one class.
        times = (torch.arange(count) + 0.5) / count * self.diffusion.timesteps
        times = times.long()[torch.randperm(count, generator=noise)].to(self.device)
        for rows in torch.split(torch.arange(count), MEASURED_AT_ONCE):
            x0, labels = self.heldout_set.batch(rows)
            t = times[rows.to(self.device)]
            eps = torch.empty_like(x0, device="cpu").normal_(generator=noise).to(self.device)
            total += self.optimisation.losses(self.ema.model, x0, labels, t, eps)[0].sum().item()
        return total / count

    def _steps_of(self, points: int) -> set[int]:
        """Step numbers at `points` evenly spaced moments, the last of them the end."""
        return {math.ceil(self.steps * point / points) for point in range(1, points + 1)}

    def _steps_after(self, every: int) -> set[int]:
        """Step numbers after each `every` epochs, and at the end."""
        count, batch_size = len(self.train_set), self.config.batch_size
        # Divided last, as `steps` is: 27 * (7 / 3) is above 63.
        return {math.ceil(epoch * count / batch_size) for epoch in range(every, self.epochs, every)} | {self.steps}

    def _check(self) -> None:
        """Stop before a number that is not finite reaches a curve or a checkpoint."""
        fault = self._watch.fault()
        if not fault and not is_finite(self.optimisation):
            fault = f"after step {self.progress.steps} a weight was not finite, although the loss was"
        if fault:
            raise RunError(
                f"training diverged: {fault}; {self._kept()}; lower train.lr ({self.config.lr:g}) or raise "
                f"train.warmup_steps ({self.config.warmup_steps}), with which it starts afresh"
            )

    def _kept(self) -> str:
        return f"the checkpoint after step {self._saved} is kept" if self._saved else "there is no checkpoint yet"

    def _log(self, reporter: Reporter, images_per_second: float) -> float:
        """Add a point to the training curve, the mean since the last one; returns its loss."""
        progress, step = self.progress, self.progress.steps
        point = dict(zip(self.curves, (progress.sums / (step - progress.logged)).tolist(), strict=True))
        point["learning_rate"] = self.optimisation.optimizer.param_groups[0]["lr"]
        progress.history.train.append({"step": step, "epoch": self._epoch(step)} | point)
        progress.sums.zero_()
        progress.logged = step
        # Speed is not in the history: it differs from run to run, and the history is a reproducible output.
        live = point | {"images_per_second": images_per_second}
        reporter.metrics({f"train/{name}": value for name, value in live.items()}, step)
        return point["loss"]

    def _evaluate(self, reporter: Reporter, step: int) -> None:
        loss = self.heldout_loss()
        self.progress.history.heldout.append({"step": step, "epoch": self._epoch(step), "loss": loss})
        reporter.metrics({"heldout/loss": loss}, step)

    def _now(self) -> float:
        """Seconds on the clock, after waiting for a GPU, which would otherwise seem faster than it is."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.perf_counter()

    def _epoch(self, step: int) -> float:
        return round(step * self.config.batch_size / len(self.train_set), 3)
