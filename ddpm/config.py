"""Typed, validated parameters: the one reader of params.yaml."""

import difflib
import reprlib
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints, ValidationError, model_validator

from ddpm.parameter_types import (
    AutoBatch,
    Batch,
    Count,
    Device,
    Extractor,
    ImageSize,
    Index,
    Integer,
    NoFp16,
    Number,
    Patch,
    Precision,
    Probability,
    Sampler,
    Schedule,
    Seed,
    Spacing,
    Switch,
    Target,
)
from ddpm.runtime.errors import InputError
from ddpm.runtime.yaml_files import read_yaml

_shortened = reprlib.Repr()
_shortened.maxlevel = 1  # a few lines of YAML can hold a billion nested values


class _Group(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class SyntheticConfig(_Group):
    """Synthetic flowers: how many, of how many kinds, from which seed."""

    count: Annotated[Integer, Field(ge=4, le=1_000_000)]
    classes: Annotated[Integer, Field(ge=1, le=102)]
    seed: Seed


class DataConfig(_Group):
    """Where the images come from and what they are made into."""

    source: Literal["flowers102", "folder", "synthetic"]
    path: str | None
    splits: Annotated[list[Literal["train", "val", "test"]], Field(min_length=1)]
    image_size: ImageSize
    on_bad_image: Literal["error", "skip"]
    holdout: Annotated[Number, Field(ge=0, le=0.5)]
    synthetic: SyntheticConfig

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.source == "folder" and not self.path:
            raise ValueError("data.path: data.source is folder, so name the folder of images here")
        if len(set(self.splits)) < len(self.splits):
            raise ValueError(f"data.splits: {self.splits} names a split twice; name each once")
        return self


class ModelConfig(_Group):
    """The U-Net (Ho et al. 2020, with the changes of Dhariwal & Nichol 2021)."""

    channels: Annotated[Integer, Field(ge=8, le=2048, multiple_of=8)]
    channel_mults: Annotated[list[Annotated[Integer, Field(ge=1, le=64)]], Field(min_length=1, max_length=7)]
    blocks: Annotated[Integer, Field(ge=1, le=32)]
    attention: list[Count]
    head_channels: Count
    dropout: Probability
    conditional: StrictBool
    patch: Patch = 1  # models of earlier versions have none

    def resolutions(self, image_size: int) -> list[int]:
        """Sides of the grid that the network sees, in patches (in pixels without), from the input to the bottom."""
        return [image_size // self.patch >> level for level in range(len(self.channel_mults))]

    def check(self, image_size: int) -> None:
        """Check that widths, attention and images go together.

        Raises:
            ValueError: in a sentence that begins with the parameter.
        """
        sides = self.resolutions(image_size)
        patches, unit = (f" in patches of {self.patch}", "patches") if self.patch > 1 else ("", "pixels")
        grid = f" (attention sides are those of the grid of {sides[0]} × {sides[0]} patches)" if patches else ""
        if sides[-1] < 2:  # on a single pixel, group normalisation would leave nothing of the image
            raise ValueError(
                f"model.channel_mults: {len(sides)} resolutions do not fit images of {image_size} pixels{patches}; "
                f"shorten the list to at most {sides[0].bit_length() - 1} entries"
            )
        for side in self.attention:
            if side not in sides:
                found = f"{side} is no resolution of this network{patches}"
                raise ValueError(f"model.attention: {found}; choose from {sides}{grid}")
        for side, mult in zip(sides, self.channel_mults, strict=True):
            channels, head = self.channels * mult, self.head_channels
            attends = side in self.attention or (self.attention and side == sides[-1])
            if attends and channels > head and channels % head:
                found = f"{head} is no divisor of the {channels} channels at {side} {unit}"
                raise ValueError(f"model.head_channels: {found}; choose one")


class DiffusionConfig(_Group):
    """The forward process and what the network learns of it."""

    timesteps: Annotated[Integer, Field(ge=2, le=100_000)]
    target: Target
    variance: Literal["fixed", "learned"]


class TrainConfig(_Group):
    """The optimisation."""

    batch_size: Batch
    lr: Annotated[Number, Field(gt=0, le=1)]
    weight_decay: Annotated[Number, Field(ge=0, le=1)]
    warmup_steps: Index
    grad_clip: Annotated[Number, Field(gt=0)]
    ema_decay: Probability
    # Models and parameters of earlier versions have none of these three.
    ema_length: Annotated[Number, Field(ge=0, le=0.25)] = 0.0
    lr_decay: Annotated[Number, Field(ge=0, le=1)] = 0.0
    timesteps: Literal["uniform", "logsnr"] = "uniform"
    min_snr: Annotated[Number, Field(ge=0)]
    flip: StrictBool
    augment: Probability
    label_dropout: Probability
    accumulate: Batch
    checkpoint_activations: StrictBool
    compile: Switch
    precision: NoFp16
    deterministic: StrictBool
    log_every: Count

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.accumulate > self.batch_size:
            raise ValueError(
                f"train.accumulate: a batch of {self.batch_size} images has no {self.accumulate} parts; "
                f"choose at most {self.batch_size} (train.batch_size)"
            )
        return self


class SampleConfig(_Group):
    """How images are drawn from the trained model."""

    n: Annotated[Integer, Field(ge=4, le=10_000_000)]
    sampler: Sampler
    steps: Count
    spacing: Spacing
    eta: Annotated[Number, Field(ge=0, le=1)]
    variance: Literal["small", "large", "learned"]
    guidance: Annotated[Number, Field(ge=0, le=100)]
    precision: Precision
    batch_size: AutoBatch


class FidConfig(_Group):
    """The score: which network sees the images, and where its weights are."""

    extractor: Extractor
    weights: str | None
    reference: Literal["all", "train", "heldout"]
    batch_size: Batch
    every: Index


class TrackingConfig(_Group):
    """MLflow."""

    enabled: StrictBool
    experiment: Annotated[str, StringConstraints(strip_whitespace=True, min_length=1)]
    preview_every: Index


class Config(_Group):
    """All of params.yaml."""

    schedule: Schedule
    epochs: Annotated[Integer, Field(ge=1, le=1_000_000)]
    seed: Seed
    device: Device
    data: DataConfig
    model: ModelConfig
    diffusion: DiffusionConfig
    train: TrainConfig
    sample: SampleConfig
    fid: FidConfig
    tracking: TrackingConfig

    @model_validator(mode="after")
    def _check(self) -> Self:
        self.model.check(self.data.image_size)
        if (most := self.diffusion.timesteps) < (steps := self.sample.steps):
            raise ValueError(f"sample.steps: {steps} is more than diffusion.timesteps ({most}); choose at most {most}")
        rare = f"train.timesteps: found '{self.train.timesteps}', which hardly draws the"
        if self.diffusion.variance == "learned" and self.train.timesteps != "uniform":
            remedy = "choose uniform here, or fixed for diffusion.variance"
            raise ValueError(f"{rare} ends of the diffusion, where a learned variance is decided; {remedy}")
        if self.schedule == "linear" and self.train.timesteps != "uniform":
            remedy = "choose uniform here, or cosine or sigmoid for schedule"
            raise ValueError(f"{rare} noisiest fifth of a linear schedule, where every sampler starts; {remedy}")
        if self.sample.variance == "learned" and self.diffusion.variance == "fixed":
            raise ValueError(
                "sample.variance: found 'learned', but diffusion.variance is fixed; choose small or large here, "
                "or learned there, which trains again"
            )
        if self.fid.reference == "heldout" and self.data.holdout == 0:
            raise ValueError("fid.reference: found 'heldout', but data.holdout is 0; choose all or train")
        if self.sample.guidance != 1 and not (self.model.conditional and self.train.label_dropout):
            raise ValueError(
                f"sample.guidance: found {self.sample.guidance:g}, which needs model.conditional: true and a "
                "train.label_dropout above 0; choose 1 here, or set those, which trains again"
            )
        return self


def load_config(path: str | Path = "params.yaml") -> Config:
    """Read and validate a parameter file.

    Raises:
        InputError: the file is missing, is not YAML, or a key or value in it cannot be used; one sentence per fault.
    """
    return parse_config(read_yaml(Path(path)), str(path))


def parse_config(params: Any, where: str = "params.yaml") -> Config:
    """Validate parameters that were read from `where`.

    Raises:
        InputError: see `load_config`.
    """
    if not isinstance(params, dict):
        found = "nothing" if params is None else type(params).__name__
        raise InputError(f"{where}: expected `key: value` lines, found {found}; copy the committed file anew with git")
    try:
        return Config.model_validate(params)
    except ValidationError as error:
        raise InputError("\n".join(f"{where}: {fault}" for fault in sentences(error))) from None


def sentences(error: ValidationError, kind: type[BaseModel] = Config) -> list[str]:
    """Describe each fault in what should be a `kind` which key is wrong, what was found and what would be right."""
    return [_sentence(fault, kind) for fault in error.errors()]


def flatten(params: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Turn nested groups into dotted names: {"train": {"lr": 1}} becomes {"train.lr": 1}."""
    flat: dict[str, Any] = {}
    for key, value in params.items():
        flat |= flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat


def _sentence(fault: Any, kind: type[BaseModel]) -> str:
    key, found = ".".join(map(_legible, fault["loc"])), _shortened.repr(fault["input"])
    match fault["type"]:
        case "value_error":  # written by hand above, complete
            return str(fault["ctx"]["error"])
        case "extra_forbidden" | "invalid_key":
            return f"{key}: unknown key{_nearest(fault['loc']) if kind is Config else ''}"
        case "missing":
            return f"{key}: missing{'; give it a value as in the committed params.yaml' if kind is Config else ''}"
        case "literal_error":
            return f"{key}: found {found}, choose {fault['ctx']['expected']}"
        case "bool_type":
            return f"{key}: found {found}; it should be a valid boolean, true or false"
        case "string_type" if not isinstance(fault["input"], list | dict | None):
            return f"{key}: found {found}; put it in quotes, so that it is text"
        case "model_type":
            return f"{key}: found {found}, expected `key: value` lines below it; see the committed params.yaml"
    message = fault["msg"][0].lower() + fault["msg"][1:]
    return f"{key}: found {found}; {message.replace('input should', 'it should')}"


def _legible(part: int | str) -> str:
    """Quote what could fill or control a terminal."""
    text = str(part)
    return text if text.isprintable() and len(text) <= 40 else _shortened.repr(text)


def _nearest(location: tuple[int | str, ...]) -> str:
    """Suggest the known key that a mistyped one probably meant."""
    group: Any = Config
    for part in location[:-1]:
        group = group.model_fields[part].annotation
    nearest = difflib.get_close_matches(str(location[-1]), group.model_fields, n=1)
    return f"; did you mean {'.'.join(map(str, (*location[:-1], *nearest)))}?" if nearest else "; remove it"
