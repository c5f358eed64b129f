"""One optimisation step: L_simple, AdamW, EMA (Ho et al. 2020, algorithm 1); L_hybrid for a learned variance."""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from ddpm.config import TrainConfig
from ddpm.diffusion.process import Diffusion
from ddpm.diffusion.vlb import WEIGHT, bound
from ddpm.network.unet import UNet
from ddpm.runtime.devices import autocast_dtype, compiles
from ddpm.runtime.distributed import Group
from ddpm.training.augment import draw, transform
from ddpm.training.batches import BatchOrder, ImageSet, generator
from ddpm.training.ema import Ema
from ddpm.training.times import draws

STATE_BYTES = 5 * 4  # per parameter, float32: weight, gradient, AdamW's two moments, averaged weight


class TrainStep:
    """Takes optimisation steps; with several processes, each works on its share of every batch.

    Attributes:
        unet: the network that is trained.
        ema: its average.
        optimizer: AdamW.
        curves: what a step measures.
        compiled: the first step takes long, because it compiles the network.
    """

    def __init__(
        self,
        unet: UNet,
        diffusion: Diffusion,
        config: TrainConfig,
        train_set: ImageSet,
        seed: int,
        steps: int,
        group: Group,
    ) -> None:
        """Prepare steps; see `Training`, and `steps`: of the whole training."""
        self.unet, self.diffusion, self.config, self.seed, self.steps = unet, diffusion, config, seed, steps
        self.ema = Ema(unet, config.ema_decay, config.ema_length)
        self._times = draws(config.timesteps, diffusion)
        self.optimizer = torch.optim.AdamW(
            unet.parameters(), lr=config.lr, weight_decay=config.weight_decay, fused=True
        )
        self.curves = ["loss", "grad_norm", *(["vlb"] if diffusion.variance == "learned" else [])]
        self.device = train_set.device
        self._train_set, self._group = train_set, group
        self._order = BatchOrder(len(train_set), config.batch_size, seed)
        self._first_seed = int(generator(seed, 1).integers(2**32))
        self._dtype = autocast_dtype(config.precision, self.device)
        unet.checkpoint_activations = config.checkpoint_activations
        self._parallel = DistributedDataParallel(unet) if group.size > 1 else None
        self._network: torch.nn.Module = self._parallel or unet
        self.compiled = compiles(config.compile, config.deterministic, self.device)
        if self.compiled:  # the average stays as it is, and so do the names in a checkpoint
            self._network = torch.compile(self._network, dynamic=False)  # type: ignore[assignment]

    def __call__(self, step: int) -> Tensor:
        """Take step number `step`; returns `curves` on the device, float32.

        loss is L_simple; vlb, of a learned variance, estimates the variational bound without L_T, the sum over all T
        steps, in bits per pixel and channel (Nichol & Dhariwal 2021, eq. 4). They are those of the whole batch, also
        where other processes have a share of it.
        """
        batch = self._batch(step)
        self.unet.train()
        self.optimizer.zero_grad(set_to_none=True)
        loss, *vlb = self._gradients(*batch)
        grad_norm = torch.nn.utils.clip_grad_norm_(self.unet.parameters(), self.config.grad_clip)
        self._set_learning_rate(step)
        self.optimizer.step()
        self.ema.update(step)
        return self._group.mean(torch.stack([loss, grad_norm, *vlb]))

    def losses(
        self,
        network: torch.nn.Module,
        x0: Tensor,
        labels: Tensor,
        t: Tensor,
        eps: Tensor,
        augmentations: Tensor | None = None,
    ) -> list[Tensor]:
        """L_simple of each image, (B,) float32, and its term of the bound where the variance is learned."""
        x_t = self.diffusion.add_noise(x0, t, eps)
        with self._autocast():
            output = network(x_t, t, labels, augmentations)
        prediction, v = self.diffusion.split(output)
        simple = self.diffusion.loss(prediction, x0, t, eps)
        return [simple] if v is None else [simple, bound(self.diffusion, prediction, v, x0, x_t, t)]

    def state(self) -> dict[str, Any]:
        """All that a step changes."""
        return {
            "unet": self.unet.state_dict(),
            "ema": self.ema.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on where the steps that gave this `state` have led."""
        self.unet.load_state_dict(state["unet"])
        self.ema.model.load_state_dict(state["ema"])
        self.optimizer.load_state_dict(state["optimizer"])
        # It keeps the strides of what it loads, which may come from a device with another memory_format; the fused
        # AdamW would take them for those of the weights.
        for weight, moments in self.optimizer.state.items():
            for name, moment in moments.items():
                if moment.shape == weight.shape:
                    moments[name] = torch.empty_like(weight).copy_(moment)

    def _batch(self, step: int) -> list[Tensor]:
        """This process's share of the batch of a step: x0, labels, t, eps, and what was done to x0 by `augment`."""
        # Everything random in a step follows from the seed and its number, so nothing before it has to be remembered.
        # Each process draws it for the whole batch, so that image k has the same however many processes there are.
        # A CPU's generator takes 32 bits: counted up from the first, no two steps share their noise by chance.
        torch.manual_seed((self._first_seed + step) % 2**32)
        count = self.config.batch_size
        share = self._group.share(count)
        x0, labels = self._train_set.batch(torch.from_numpy(self._order.rows(step)[share]))
        self._train_set.expect(torch.from_numpy(self._order.rows(step + 1)[share]))
        if self.config.flip:
            mirrored = torch.rand(count, 1, 1, 1, device=self.device)[share] < 0.5
            x0 = torch.where(mirrored, x0.flip(-1), x0)
        t = self._times(count)[share]
        if self.unet.none_class is not None:  # Ho & Salimans 2022, algorithm 1
            dropped = torch.rand(count, device=self.device)[share] < self.config.label_dropout
            labels = labels.masked_fill(dropped, self.unet.none_class)
        eps = torch.randn(count, *x0.shape[1:], device=self.device)[share]
        augmentations = []
        if self.config.augment:  # drawn last, so that it changes nothing else
            augmentations = [draw(count, self.config.augment, self.device)[share]]
            x0 = transform(x0, *augmentations)
        if self._group.rank > 0:  # or the images of all shares would lose the same activations by dropout
            torch.manual_seed(int(generator(self.seed, 2, step, self._group.rank).integers(2**63)))
        return [x0, labels, t, eps, *augmentations]

    def _gradients(self, *batch: Tensor) -> list[Tensor]:
        """Leave the gradients of a batch; returns L_simple, and the bound where the variance is learned."""
        parts = list(zip(*(tensor.chunk(self.config.accumulate) for tensor in batch), strict=True))
        with self._parallel.no_sync() if self._parallel else nullcontext():
            sums = [self._backward(*part) for part in parts[:-1]]
        sums.append(self._backward(*parts[-1]))  # here the processes exchange their gradients
        return [sum(terms[1:], start=terms[0]) for terms in zip(*sums, strict=True)]

    def _backward(self, x0: Tensor, labels: Tensor, t: Tensor, eps: Tensor, *augmentations: Tensor) -> list[Tensor]:
        """Add the gradients of a part of the batch; returns its share of L_simple, and of the bound."""
        # DistributedDataParallel averages over the processes: this makes it the mean over the images of the batch,
        # also where one process has an image more than another.
        count = self.config.batch_size / self._group.size
        simple, *bounds = self.losses(self._network, x0, labels, t, eps, *augmentations)
        loss, *vlb = (losses.sum() / count for losses in (simple, *bounds))
        # The loss that is reported stays L_simple, so that its curves can be compared whatever its weights. They still
        # depend on how the levels are drawn; those of the held-out images do not.
        gamma = self.config.min_snr
        weighted = (self.diffusion.min_snr_weight(t, gamma) * simple).sum() / count if gamma else loss
        hybrid = weighted + WEIGHT * self.diffusion.timesteps * vlb[0] if vlb else weighted  # the mean is of one term
        hybrid.backward()  # type: ignore[no-untyped-call]
        return [loss.detach(), *(self.diffusion.timesteps * term.detach() for term in vlb)]

    def _autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device.type, self._dtype) if self._dtype else nullcontext()

    def _set_learning_rate(self, step: int) -> None:
        warmed_up = min(1.0, (step + 1) / max(1, self.config.warmup_steps))
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.lr * warmed_up * self._cooled_down(step)

    def _cooled_down(self, step: int) -> float:
        """1, and in the last `lr_decay` of the training a line down to 0 (Hägele et al. 2024)."""
        falling = self.config.lr_decay * self.steps
        return min(1.0, (self.steps - step) / falling) if falling else 1.0
