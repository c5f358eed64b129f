"""A trained model in use: from a folder to images in two lines."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddpm import samplers
from ddpm.config import ModelConfig
from ddpm.devices import choose_device, memory_format
from ddpm.diffusion import Diffusion
from ddpm.errors import InputError
from ddpm.model_file import CONFIG_FILE, WEIGHTS_FILE, read_model
from ddpm.pixels import to_uint8
from ddpm.unet import UNet


class DiffusionModel:
    """A network with the diffusion that it was trained for, ready to paint.

    Attributes:
        unet: the network, on its device.
        diffusion: schedule and target.
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
            options: `sampler` ("ddim" or "ddpm"), `eta` for ddim, `variance` for ddpm; see `trajectory`.

        Returns:
            (n, H, W, 3) uint8, RGB.
        """
        _check("n", n, n >= 1, "1 or more")
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
        eta: float = 0.0,
        variance: str = "small",
    ) -> Iterator[Tensor]:
        """Paint the images with the given numbers, yielding them as noise and after every step.

        Yields:
            (B, 3, H, W) float32, `steps` + 1 times.

        Raises:
            InputError: an option is out of its range.
        """
        _check("steps", steps, 1 <= steps <= self.diffusion.timesteps, f"1 to {self.diffusion.timesteps}")
        _check("seed", seed, 0 <= seed < 2**63, "0 or more")
        _check("sampler", sampler, sampler in ("ddim", "ddpm"), "'ddim' or 'ddpm'")
        _check("eta", eta, 0 <= eta <= 1, "0 to 1")
        _check("variance", variance, variance in ("small", "large"), "'small' or 'large'")
        return self._paint(indices, steps, seed, sampler, eta, variance)

    @torch.inference_mode()
    def _paint(
        self, indices: range, steps: int, seed: int, sampler: str, eta: float, variance: str
    ) -> Iterator[Tensor]:
        self.unet.eval()
        noise = samplers.ImageNoise(seed, indices, (3, self.image_size, self.image_size), self.device)
        labels = self._draw_labels(noise)

        def denoise(x: Tensor, t: int) -> Tensor:
            times = torch.full((len(x),), t, device=self.device)
            return self.diffusion.predict_x0(self.unet(x, times, labels), x, times).clamp(-1, 1)

        x = noise()
        yield x
        spaced = samplers.spaced_steps(self.diffusion.timesteps, steps)
        if sampler == "ddim":
            yield from samplers.ddim(denoise, self.diffusion, x, spaced, noise, eta)
        else:
            yield from samplers.ddpm(denoise, self.diffusion, x, spaced, noise, variance)

    def _draw_labels(self, noise: samplers.ImageNoise) -> Tensor | None:
        """Classes as frequent as in the training images, for a conditional model: (B,) int64."""
        if self.unet.class_embedding is None:
            return None
        shares = np.cumsum(self.config["class_counts"]) / sum(self.config["class_counts"])
        return torch.from_numpy(np.searchsorted(shares, noise.uniform(), side="right")).to(self.device)


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
        unet = UNet(ModelConfig.model_validate(config["model"]), config["image_size"], num_classes)
        unet.load_state_dict(weights)
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"{folder}: {WEIGHTS_FILE} and {CONFIG_FILE} do not fit each other ({reason})") from None
    place = choose_device(device)
    return DiffusionModel(unet.to(place, memory_format=memory_format(place)), config)  # type: ignore[call-overload]


def _check(name: str, value: object, good: bool, choices: str) -> None:
    if not good:
        raise InputError(f"{name}: found {value!r}, choose {choices}")
