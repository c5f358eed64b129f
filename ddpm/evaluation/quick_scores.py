"""FID and KID of a network in training: few images and few steps, to follow it, not to be quoted."""

from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ddpm.config import FidConfig
from ddpm.evaluation.features import extract, load_extractor, weights_file
from ddpm.evaluation.scores import MIN_IMAGES, fid, kid_blocks
from ddpm.runtime.errors import InputError
from ddpm.runtime.paths import WEIGHTS

SAMPLES = 500
REAL_IMAGES = 1000
SAMPLING = {"sampler": "dpmpp_2m_sde", "spacing": "trailing"}
STEPS = 20


class _Process(Protocol):
    @property
    def timesteps(self) -> int: ...


class Generator(Protocol):
    """A model as far as the scores use it, such as `ddpm.model.trained.DiffusionModel`."""

    @property
    def diffusion(self) -> _Process:
        """The diffusion, which knows how many timesteps it has."""

    def sample(self, n: int, **options: Any) -> np.ndarray:
        """Generate images: (n, H, W, 3) uint8."""


class QuickScores:
    """Scores the same numbers of images from the same noise against the same training images every time.

    They are for comparisons within one training and between trainings with the same settings: with so few images, FID
    is far above that of the fid stage.
    """

    def __init__(
        self,
        config: FidConfig,
        images: np.ndarray,
        train_rows: np.ndarray,
        device: torch.device,
        seed: int,
        weights: Path = WEIGHTS,
    ) -> None:
        """Load the feature network, and see the real images with it.

        Args:
            config: which network.
            images: (N, H, W, 3) uint8; may be a memory map.
            train_rows: (M,) int64, which of them are trained on; 1000 of these are taken.
            device: where the network runs.
            seed: of the samples.
            weights: folder that the download stage wrote.

        Raises:
            InputError: the network's weights are missing, or there are too few images.
        """
        if len(train_rows) < MIN_IMAGES:
            raise InputError(
                f"fid.every: {len(train_rows)} training images are too few, the scores need {MIN_IMAGES}; set it to 0"
            )
        self._config, self._seed = config, seed
        self._extractor: nn.Module = load_extractor(config.extractor, weights_file(config.extractor, weights), device)
        rows = np.random.default_rng(0).permutation(train_rows)[:REAL_IMAGES]
        self._real = self._features(images[np.sort(rows)])

    def __call__(self, model: Generator) -> dict[str, float]:
        """Generate and score: quick/fid and quick/kid."""
        steps = min(STEPS, model.diffusion.timesteps)
        fake = self._features(model.sample(SAMPLES, steps=steps, seed=self._seed, batch_size="auto", **SAMPLING))
        return {"quick/fid": fid(self._real, fake), "quick/kid": float(kid_blocks(self._real, fake).mean())}

    def _features(self, images: np.ndarray) -> Tensor:
        features = extract(images, self._extractor, self._config.batch_size)
        return torch.from_numpy(features).to(next(self._extractor.parameters()).device)
