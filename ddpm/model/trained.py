"""A trained model in use: from a folder to images in two lines."""

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self, get_args

import numpy as np
import torch
from pydantic import BaseModel, ValidationError, model_validator
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from ddpm.config import DiffusionConfig, ModelConfig, sentences
from ddpm.data.class_names import find_class, one_each
from ddpm.data.pixels import to_uint8
from ddpm.diffusion.noise import ImageNoise
from ddpm.diffusion.process import Diffusion
from ddpm.diffusion.samplers import SAMPLERS, SPACINGS
from ddpm.model.guidance import predict
from ddpm.model.model_file import CONFIG_FILE, WEIGHTS_FILE, read_model, unseen_classes
from ddpm.network.unet import UNet
from ddpm.parameter_types import ImageSize, Precision, Schedule
from ddpm.runtime.devices import allow_tf32, autocast_dtype, choose_device, memory_format
from ddpm.runtime.errors import InputError, is_out_of_memory

# Where `batch_size: auto` begins: on a GPU with more than most can hold, and halved until it fits; on a CPU, where more
# at a time is not faster, with what needs little memory.
AUTO_BATCH = {"cuda": 1024, "cpu": 16}


class _ModelFile(BaseModel):
    """What must be right in config.json, see `model_file.save_model`."""

    model: ModelConfig
    diffusion: DiffusionConfig
    schedule: Schedule
    image_size: ImageSize
    class_names: list[str]
    class_counts: list[int]

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.model.check(self.image_size)
        if len(self.class_names) != len(self.class_counts) or min(self.class_counts, default=0) < 0:
            raise ValueError("class_counts: expected a number of images, 0 or more, for each of class_names")
        return self


class DiffusionModel:
    """A network with the diffusion that it was trained for, ready to generate.

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

    @property
    def unseen_classes(self) -> list[str]:
        """Names of the classes of a conditional model that had no training image."""
        return unseen_classes(self.config)

    def sample(self, n: int, **options: Any) -> np.ndarray:
        """Generate n images; image i depends on the seed and on i alone.

        Args:
            n: number of images.
            options: see `batches` and `trajectory`; without any, 50 steps of ddim.

        Returns:
            (n, H, W, 3) uint8, RGB.
        """
        return np.concatenate(list(self.batches(n, **options)))

    def batches(
        self,
        n: int,
        *,
        first: int = 0,
        batch_size: int | Literal["auto"] = 64,
        label: str | Sequence[str] | None = None,
        on_step: Callable[[int], object] | None = None,
        **options: Any,
    ) -> Iterator[np.ndarray]:
        """Generate n images, yielding them as they are finished.

        Args:
            n: number of images.
            first: number of the first image; `sample(4, first=8)` are the last four of `sample(12)`.
            batch_size: images generated at a time; auto: as many as fit into the memory of a GPU.
            label: for a conditional model, the class of all images, or of each, as `find_class` takes it; without it,
                classes are drawn as frequent as in the training images.
            on_step: is called after every step of a batch with the number of its images.
            options: see `trajectory`.

        Yields:
            (B, H, W, 3) uint8, RGB.
        """
        _check("n", n, n >= 1, "1 or more")
        _check("first", first, first >= 0, "0 or more")
        _check("batch_size", batch_size, batch_size == "auto" or batch_size >= 1, "auto, or 1 or more")
        label = None if label is None else one_each(label, n)
        size = AUTO_BATCH[self.device.type] if batch_size == "auto" else batch_size
        done = 0
        while done < n:
            count = min(size, n - done)
            indices, labels = range(first + done, first + done + count), label and label[done : done + count]
            try:
                for number, x in enumerate(self.trajectory(indices, label=labels, **options)):
                    last = x
                    if on_step and number > 0:
                        on_step(count)
            except (RuntimeError, MemoryError) as error:
                if batch_size != "auto" or count == 1 or not is_out_of_memory(error):
                    raise
                size = count // 2
                continue
            yield to_uint8(last)
            done += count

    def frames(self, indices: range, count: int, *, steps: int, **options: Any) -> np.ndarray:
        """Show images on their way from noise, at most `count` times evenly: (count, B, H, W, 3) uint8."""
        trajectory = self.trajectory(indices, steps=steps, **options)
        chosen = set(np.linspace(0, steps, min(count, steps + 1)).round().tolist())
        return np.stack([to_uint8(x) for number, x in enumerate(trajectory) if number in chosen])

    def trajectory(
        self,
        indices: range,
        *,
        steps: int = 50,
        seed: int = 0,
        sampler: str = "ddim",
        spacing: str = "trailing",
        eta: float = 0.0,
        variance: str = "small",
        guidance: float = 1.0,
        precision: str = "auto",
        label: str | Sequence[str] | None = None,
    ) -> Iterator[Tensor]:
        """Generate the images with the given numbers, yielding them as noise and after every step.

        Args:
            indices: numbers of the images.
            steps: network calls per image.
            seed: another seed gives other images.
            sampler: one of `SAMPLERS`.
            spacing: one of `SPACINGS`.
            eta: for ddim.
            variance: for ddpm.
            guidance: see `guidance.predict`; values other than 0 and 1 double the work of a call.
            precision: of the network; auto, bf16 or fp32. The state between its calls is float32 always.
            label: see `batches`.

        Yields:
            (B, 3, H, W) float32, `steps` + 1 times.

        Raises:
            InputError: an option is out of its range, or the model has not learned what is asked for.
        """
        _check("steps", steps, 1 <= steps <= self.diffusion.timesteps, f"1 to {self.diffusion.timesteps}")
        _check("seed", seed, 0 <= seed < 2**63, "0 or more")
        _check("sampler", sampler, sampler in SAMPLERS, ", ".join(SAMPLERS))
        _check("spacing", spacing, spacing in SPACINGS, ", ".join(SPACINGS))
        _check("eta", eta, 0 <= eta <= 1, "0 to 1")
        _check("variance", variance, variance in ("small", "large", "learned"), "small, large or learned")
        _check("guidance", guidance, 0 <= guidance < math.inf, "0 or more")
        _check("precision", precision, precision in get_args(Precision), ", ".join(get_args(Precision)))
        if variance == "learned" and self.diffusion.variance == "fixed":
            raise InputError(
                "variance: found 'learned', but this model has learned none; choose small or large, "
                "or train one with diffusion.variance: learned"
            )
        if guidance != 1 and self.unet.none_class is None:
            raise InputError(
                f"guidance: found {guidance:g}, but this model cannot be guided; choose 1, "
                "or train one with model.conditional: true and train.label_dropout above 0"
            )
        classes = self._classes(label, len(indices)) if label is not None else None
        dtype = autocast_dtype(precision, self.device)
        options: dict[str, dict[str, Any]] = {"ddpm": {"variance": variance}, "ddim": {"eta": eta}}
        times = SPACINGS[spacing](self.diffusion, steps)
        ask = partial(predict, self.unet, self.diffusion, guidance=guidance, dtype=dtype)
        run = partial(SAMPLERS[sampler], steps=times, **options.get(sampler, {}))
        return self._generate(indices, seed, classes, ask, run)

    @torch.inference_mode()
    def _generate(
        self,
        indices: range,
        seed: int,
        classes: list[int] | None,
        ask: Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor | None]],
        run: Callable[..., Iterator[Tensor]],
    ) -> Iterator[Tensor]:
        self.unet.eval()
        noise = ImageNoise(seed, indices, (3, self.image_size, self.image_size), self.device)
        labels = self._draw_labels(noise)  # also when they are not needed, so that a class does not change the noise
        if classes is not None:
            labels = torch.tensor(classes, device=self.device)

        def denoise(x: Tensor, t: int) -> tuple[Tensor, Tensor | None]:
            times = torch.full((len(x),), t, device=self.device)  # filled on the device, so nothing waits for a copy
            prediction, v = ask(x, times, labels)
            return self.diffusion.predict_x0(prediction, x, times).clamp(-1, 1), v

        x = noise()
        yield x
        yield from run(denoise, self.diffusion, x, noise=noise)

    def _classes(self, label: str | Sequence[str], count: int) -> list[int]:
        """Numbers of the classes of `count` images."""
        if self.unet.class_embedding is None:
            raise InputError(
                "class: this model was trained without classes; leave it out, or train one with model.conditional: true"
            )
        found = [find_class(name, self.config["class_names"]) for name in one_each(label, count)]
        names = [self.config["class_names"][number] for number in found]
        if unseen := set(names) & set(self.unseen_classes):
            raise InputError(
                f"class: {min(unseen)!r} had no training image, so the model does not know it; choose another, or "
                "train with more images of it, or with a lower data.holdout"
            )
        return found

    def _draw_labels(self, noise: ImageNoise) -> Tensor | None:
        """Classes as frequent as in the training images, for a conditional model: (B,) int64."""
        if self.unet.class_embedding is None:
            return None
        counts = torch.tensor(self.config["class_counts"], dtype=torch.float64)
        shares = (counts.cumsum(0) / counts.sum()).to(self.device)
        return torch.searchsorted(shares, noise.uniform(), right=True)


def load_model(folder: str | Path, device: str = "auto") -> DiffusionModel:
    """Read a model folder; nothing about the model has to be specified again.

    Args:
        folder: with model.safetensors and config.json, such as `models`.
        device: auto, cuda or cpu.

    Raises:
        InputError: the folder holds no model, or one that does not fit its config.json.
    """
    folder = Path(folder)
    weights, config = read_model(folder)
    if isinstance(config.get("diffusion"), dict):  # models of earlier versions have no variance
        config["diffusion"].setdefault("variance", "fixed")
    try:
        about = _ModelFile.model_validate(config)
    except ValidationError as error:
        fault = sentences(error, _ModelFile)[0]
        raise InputError(
            f"{folder / CONFIG_FILE}: {fault}; the file was edited, or is of a newer version of this program"
        ) from None
    try:
        num_classes = len(about.class_names) if about.model.conditional else None
        none_class = num_classes is not None and len(weights["class_embedding.weight"]) > num_classes
        channels = Diffusion(about.schedule, **about.diffusion.model_dump()).output_channels
        # Without memory, which a hostile config could ask for by the terabyte.
        with torch.device("meta"), _NoNormalInit():
            unet = UNet(about.model, about.image_size, num_classes, channels, none_class)
        unet.load_sampling_weights({name: tensor.float() for name, tensor in weights.items()})
    except (KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{folder}: {WEIGHTS_FILE} and {CONFIG_FILE} do not fit each other ({reason}); copy both anew, or "
            "train the model again with `dvc repro train`"
        ) from None
    place = choose_device(device)
    allow_tf32()  # as in training
    return DiffusionModel(unet.to(place, memory_format=memory_format(place)), config)  # type: ignore[call-overload]


class _NoNormalInit(TorchFunctionMode):
    """Skips the normal initialisation of an embedding: on the device meta, it imports torch._dynamo for seconds."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        return kwargs["tensor"] if func is nn.init.normal_ else func(*args, **(kwargs or {}))


def _check(name: str, value: object, good: bool, choices: str) -> None:
    if not good:
        raise InputError(f"{name}: found {value!r}, choose {choices}")
