"""The training loop: L_simple, AdamW, EMA (Ho et al. 2020, algorithm 1); L_hybrid for a learned variance."""

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from ddpm.checkpoint import Checkpoint
from ddpm.config import TrainConfig
from ddpm.devices import autocast_dtype
from ddpm.diffusion import Diffusion
from ddpm.ema import Ema
from ddpm.errors import RunError
from ddpm.pixels import from_uint8
from ddpm.progress import progress_bar
from ddpm.unet import UNet
from ddpm.vlb import WEIGHT, bound

MAX_EVALUATIONS = 100  # points of the held-out curve; more would cost more than 1 % of a training


class Reporter(Protocol):
    """Where live curves go."""

    def metrics(self, metrics: dict[str, float], step: int) -> None:
        """Take named values at a training step."""


@dataclass(frozen=True)
class ImageSet:
    """Images and classes on the training device.

    images: (N, 3, H, W) uint8.
    labels: (N,) int64.
    """

    images: Tensor
    labels: Tensor

    @classmethod
    def on(cls, device: torch.device, images: np.ndarray, labels: np.ndarray) -> "ImageSet":
        """Move (N, H, W, 3) uint8 images and their (N,) classes to the device."""
        return cls(
            # Copies, because PyTorch warns of read-only arrays such as the memory map.
            torch.from_numpy(np.array(images)).to(device).permute(0, 3, 1, 2).contiguous(),
            torch.from_numpy(np.array(labels, dtype=np.int64)).to(device),
        )

    def __len__(self) -> int:
        return len(self.images)

    def batch(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Images (B, 3, H, W) float32 in [-1, 1] and classes (B,) of the given rows."""
        return from_uint8(self.images[rows]), self.labels[rows]


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


class BatchOrder:
    """Which images make up the batch of a step: every image once per epoch, in an order drawn anew for each.

    Epochs follow one another without a gap, so a batch may hold the end of one and the start of the next; any batch
    size goes with any number of images. A step's batch depends on the seed and the step alone.
    """

    def __init__(self, count: int, batch_size: int, seed: int) -> None:
        self.count, self.batch_size = count, batch_size
        self._permutation = lru_cache(maxsize=2)(lambda epoch: _generator(seed, 0, epoch).permutation(count))

    def rows(self, step: int) -> np.ndarray:
        """Row numbers of the batch of a step, (B,) int64."""
        places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
        epochs, offsets = np.divmod(places, self.count)
        return np.concatenate([self._permutation(int(epoch))[offsets[epochs == epoch]] for epoch in np.unique(epochs)])


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
        """
        self.unet, self.diffusion, self.config = unet, diffusion, config
        self.train_set, self.heldout_set = train_set, heldout_set
        self.epochs, self.seed = epochs, seed
        self.steps = max(1, math.ceil(epochs * len(train_set) / config.batch_size))
        self.device = train_set.images.device
        self.ema = Ema(unet, config.ema_decay)
        self.optimizer = torch.optim.AdamW(
            unet.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.order = BatchOrder(len(train_set), config.batch_size, seed)
        self.curves = ["loss", "grad_norm", *(["vlb"] if diffusion.variance == "learned" else [])]
        self.progress = Progress(0, 0, torch.zeros(len(self.curves), device=self.device), History())
        self._dtype = autocast_dtype(config.precision, self.device)

    def run(
        self, reporter: Reporter, preview: Callable[[UNet, int], None], preview_every: int, checkpoint: Checkpoint
    ) -> History:
        """Train to the end, from the beginning or from the checkpoint.

        Args:
            reporter: is given the curves, learning rate, images/s and the held-out loss as they come.
            preview: is called with the averaged network and the step number, to paint a few images.
            preview_every: epochs between two previews; 0 for none.
            checkpoint: where the state is kept now and then, and at the end.

        Raises:
            RunError: the loss is no longer a finite number.
        """
        evaluations = self._steps_of(min(self.epochs, MAX_EVALUATIONS)) if len(self.heldout_set) else set()
        previews = self._previews(preview_every) if preview_every else set()
        progress, batch_size = self.progress, self.config.batch_size
        first, started = progress.steps, time.perf_counter()
        with progress_bar(self.steps * batch_size, "train", initial=first * batch_size, unit_scale=True) as bar:
            for done in range(first + 1, self.steps + 1):
                progress.sums += self.train_step(done - 1)
                progress.steps = done
                bar.update(batch_size)
                if done % self.config.log_every == 0 or done == self.steps:
                    rate = (done - first) * batch_size / (time.perf_counter() - started)
                    bar.set_postfix(loss=f"{self._log(reporter, rate):.4f}", refresh=False)
                    first, started = done, time.perf_counter()
                if done in evaluations:
                    self._evaluate(reporter, done)
                if done in previews:
                    preview(self.ema.model, done)
                if checkpoint.due() or done == self.steps:
                    checkpoint.save(self.state())
                if done in evaluations | previews:
                    first, started = done, time.perf_counter()  # images/s is that of training alone
        return progress.history

    def state(self) -> dict[str, Any]:
        """All that a later process needs to go on exactly as this one would have; see `restore`."""
        return {
            "unet": self.unet.state_dict(),
            "ema": self.ema.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "progress": asdict(self.progress),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where the training that gave this `state` was; it must have had the same parameters and images."""
        self.unet.load_state_dict(state["unet"])
        self.ema.model.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        saved = state["progress"]
        sums, history = saved["sums"].to(self.device), History(**saved["history"])
        self.progress = Progress(saved["steps"], saved["logged"], sums, history)

    def train_step(self, step: int) -> Tensor:
        """Take one optimisation step; returns `curves` on the device, float32, vlb in bits per pixel and channel."""
        # Everything random in a step follows from the seed and its number, so nothing before it has to be remembered.
        torch.manual_seed(int(_generator(self.seed, 1, step).integers(2**63)))
        x0, labels = self.train_set.batch(self._rows(step))
        if self.config.flip:
            mirrored = torch.rand(len(x0), 1, 1, 1, device=self.device) < 0.5
            x0 = torch.where(mirrored, x0.flip(-1), x0)
        t = torch.randint(self.diffusion.timesteps, (len(x0),), device=self.device)
        if self.unet.none_class is not None:  # Ho & Salimans 2022, algorithm 1
            dropped = torch.rand(len(x0), device=self.device) < self.config.label_dropout
            labels = labels.masked_fill(dropped, self.unet.none_class)
        self.unet.train()
        # The loss that is reported stays L_simple, so that curves with and without a learned variance can be compared.
        loss, *vlb = (losses.mean() for losses in self._losses(self.unet, x0, labels, t))
        hybrid = loss + WEIGHT * self.diffusion.timesteps * vlb[0] if vlb else loss
        self.optimizer.zero_grad(set_to_none=True)
        hybrid.backward()  # type: ignore[no-untyped-call]
        grad_norm = torch.nn.utils.clip_grad_norm_(self.unet.parameters(), self.config.grad_clip)
        self._set_learning_rate(step)
        self.optimizer.step()
        self.ema.update(step)
        return torch.stack([loss.detach(), grad_norm, *(term.detach() for term in vlb)])

    @torch.no_grad()
    def heldout_loss(self) -> float:
        """Mean loss of the averaged network on the held-out images, at noise and time steps that never change."""
        torch.manual_seed(self.seed)
        count, total = len(self.heldout_set), 0.0
        # Evenly spaced, and shuffled because neighbouring images often are of one class.
        times = (torch.arange(count) + 0.5) / count * self.diffusion.timesteps
        times = times.long()[torch.randperm(count)].to(self.device)
        for rows in torch.split(torch.arange(count, device=self.device), self.config.batch_size):
            x0, labels = self.heldout_set.batch(rows)
            total += self._losses(self.ema.model, x0, labels, times[rows])[0].sum().item()
        return total / count

    def _rows(self, step: int) -> Tensor:
        """Rows of the batch of a step, (B,) int64 on the device; a GPU takes them without keeping the host waiting."""
        rows = torch.from_numpy(self.order.rows(step))
        if self.device.type == "cuda":
            rows = rows.pin_memory()
        return rows.to(self.device, non_blocking=True)

    def _losses(self, unet: UNet, x0: Tensor, labels: Tensor, t: Tensor) -> list[Tensor]:
        """L_simple of each image, (B,) float32, and its term of the bound where the variance is learned."""
        eps = torch.randn_like(x0)
        x_t = self.diffusion.add_noise(x0, t, eps)
        with self._autocast():
            output = unet(x_t, t, labels)
        prediction, v = self.diffusion.split(output)
        simple = self.diffusion.loss(prediction, x0, t, eps)
        return [simple] if v is None else [simple, bound(self.diffusion, prediction, v, x0, x_t, t)]

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, self._dtype) if self._dtype else nullcontext()

    def _set_learning_rate(self, step: int) -> None:
        warmed_up = min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * warmed_up

    def _steps_of(self, points: int) -> set[int]:
        """Step numbers at `points` evenly spaced moments, the last of them the end."""
        return {math.ceil(self.steps * point / points) for point in range(1, points + 1)}

    def _previews(self, every: int) -> set[int]:
        """Step numbers after each `every` epochs, and at the end."""
        per_epoch = len(self.train_set) / self.config.batch_size
        return {math.ceil(epoch * per_epoch) for epoch in range(every, self.epochs, every)} | {self.steps}

    def _log(self, reporter: Reporter, images_per_second: float) -> float:
        """Add a point to the training curve, the mean since the last one; returns its loss."""
        progress, step = self.progress, self.progress.steps
        point = dict(zip(self.curves, (progress.sums / (step - progress.logged)).tolist(), strict=True))
        if not all(map(math.isfinite, point.values())):
            raise RunError(
                f"training diverged: the loss is {point['loss']} (gradient norm {point['grad_norm']}) by step {step}; "
                f"lower train.lr ({self.config.lr:g}) or raise train.warmup_steps ({self.config.warmup_steps})"
            )
        point["learning_rate"] = self.optimizer.param_groups[0]["lr"]
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

    def _epoch(self, step: int) -> float:
        return round(step * self.config.batch_size / len(self.train_set), 3)


def _generator(seed: int, purpose: int, number: int) -> np.random.Generator:
    """A random stream for one purpose (0: order of an epoch, 1: a step) that shares nothing with any other."""
    return np.random.default_rng([seed, purpose, number])
