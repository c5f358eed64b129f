"""A trained model in use: from a folder to images in two lines."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm.config import ModelConfig
from ddpm.devices import choose_device, memory_format
from ddpm.diffusion import Diffusion
from ddpm.errors import InputError
from ddpm.model_file import CONFIG_FILE, WEIGHTS_FILE, read_model
from ddpm.noise import ImageNoise
from ddpm.pixels import to_uint8
from ddpm.samplers import SAMPLERS, SPACINGS
from ddpm.unet import UNet


class DiffusionModel:
    """A network with the diffusion that it was trained for, ready to paint.

    Attributes:
        unet: the network, on its device.
        diffusion: schedule, target and whether the variance was learned.
        config: the content of config.json, see `model_file.save_model`.
    """

    def __init__(self, unet: UNet, config: dict[str, Any]) -> None:
        self.unet = unet
        self.config = config
        self.device = next(unet.parameters()).device
        self.diffusion = Diffusion(config["schedule"], **config["diffusion"], device=self.device)

    @property
    def image_size(self) -> int:
        """Side of the images, pixels."""
        return self.config["image_size"]

    def sample(
        self, n: int, *, steps: int = 50, seed: int = 0, first: int = 0, batch_size: int = 64, **options: Any
    ) -> np.ndarray:
        """Paint n images; image i depends on the seed and on i alone.

        Args:
            n: number of images.
            steps: network calls per image.
            seed: another seed gives other images.
            first: number of the first image; `sample(4, first=8)` are the last four of `sample(12)`.
            batch_size: images painted at a time.
            options: `sampler` (one of `SAMPLERS`), `spacing` (one of `SPACINGS`), `eta` for ddim, `variance` for ddpm;
                see `trajectory`.

        Returns:
            (n, H, W, 3) uint8, RGB.
        """
        _check("n", n, n >= 1, "1 or more")
        _check("first", first, first >= 0, "0 or more")
        _check("batch_size", batch_size, batch_size >= 1, "1 or more")
        batches = []
        for start in range(first, first + n, batch_size):
            indices = range(start, min(start + batch_size, first + n))
            for x in self.trajectory(indices, steps=steps, seed=seed, **options):
                last = x
            batches.append(to_uint8(last))
        return np.concatenate(batches)

    def trajectory(
        self,
        indices: range,
        *,
        steps: int,
        seed: int,
        sampler: str = "ddim",
        spacing: str = "trailing",
        eta: float = 0.0,
        variance: str = "small",
    ) -> Iterator[Tensor]:
        """Paint the images with the given numbers, yielding them as noise and after every step.

        Yields:
            (B, 3, H, W) float32, `steps` + 1 times.

        Raises:
            InputError: an option is out of its range, or the model has not learned the variance that is asked for.
        """
        _check("steps", steps, 1 <= steps <= self.diffusion.timesteps, f"1 to {self.diffusion.timesteps}")
        _check("seed", seed, 0 <= seed < 2**63, "0 or more")
        _check("sampler", sampler, sampler in SAMPLERS, ", ".join(SAMPLERS))
        _check("spacing", spacing, spacing in SPACINGS, ", ".join(SPACINGS))
        _check("eta", eta, 0 <= eta <= 1, "0 to 1")
        _check("variance", variance, variance in ("small", "large", "learned"), "small, large or learned")
        if variance == "learned" and self.diffusion.variance == "fixed":
            raise InputError(
                "variance: found 'learned', but this model has learned none; choose small or large, "
                "or train one with diffusion.variance: learned"
            )
        options: dict[str, dict[str, Any]] = {"ddpm": {"variance": variance}, "ddim": {"eta": eta}}
        times = SPACINGS[spacing](self.diffusion, steps)
        return self._paint(indices, seed, partial(SAMPLERS[sampler], steps=times, **options.get(sampler, {})))

    @torch.inference_mode()
    def _paint(self, indices: range, seed: int, run: Callable[..., Iterator[Tensor]]) -> Iterator[Tensor]:
        self.unet.eval()
        noise = ImageNoise(seed, indices, (3, self.image_size, self.image_size), self.device)
        labels = self._draw_labels(noise)

        def denoise(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
            times = torch.full((len(x),), t, device=self.device)  # filled on the device, so nothing waits for a copy
            prediction, v = self.diffusion.split(self.unet(x, times, labels))
            return self.diffusion.predict_x0(prediction, x, times).clamp(-1, 1), v

        x = noise()
        yield x
        yield from run(denoise, self.diffusion, x, noise=noise)

    def _draw_labels(self, noise: ImageNoise) -> Tensor | None:
        """Classes as frequent as in the training images, for a conditional model: (B,) int64."""
        if self.unet.class_embedding is None:
            return None
        counts = torch.tensor(self.config["class_counts"], dtype=torch.float64)
        shares = (counts.cumsum(0) / counts.sum()).to(self.device)
        return torch.searchsorted(shares, noise.uniform(), right=True)


def load_model(folder: str | Path, device: str = "auto") -> DiffusionModel:
    """Read a model folder; nothing about the model has to be said again.

    Args:
        folder: with model.safetensors and config.json, such as `models`.
        device: auto, cuda or cpu.

    Raises:
        InputError: the folder holds no model, or one that does not fit its config.json.
    """
    folder = Path(folder)
    weights, config = read_model(folder)
    try:
        num_classes = len(config["class_names"]) if config["model"]["conditional"] else None
        channels = Diffusion(config["schedule"], **config["diffusion"]).output_channels
        unet = UNet(ModelConfig.model_validate(config["model"]), config["image_size"], num_classes, channels)
        unet.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: {WEIGHTS_FILE} and {CONFIG_FILE} do not fit each other ({reason})") from None
    place = choose_device(device)
    return DiffusionModel(unet.to(place, memory_format=memory_format(place)), config)  # type: ignore[call-overload]


def _check(name: str, value: object, good: bool, choices: str) -> None:
    if not good:
        raise InputError(f"{name}: found {value!r}, choose {choices}")
