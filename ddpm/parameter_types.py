"""Types of single parameters, with their bounds and choices, and the messages for those that do not fit."""

import re
from contextlib import suppress
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, PlainValidator
from pydantic_core import PydanticCustomError

MAX_BATCH = 100_000  # far above any use
AMBIGUOUS = re.compile(r"\s|[-+]?0\d|[-+]?\d.*[_\s]")  # of numbers in quotes


def _number(value: Any) -> Any:
    """Refuse true and false, which pydantic would read as 1 and 0; take 1e4, which some YAML has as text, for a number.

    Text such as '010' and '1_000', which DVC records as it stands, is refused: it is not the same number to everybody.
    """
    if isinstance(value, bool):
        raise PydanticCustomError("truth_value", "it should be a number")
    if isinstance(value, str) and AMBIGUOUS.match(value):
        raise PydanticCustomError("ambiguous", "write the number without quotes, leading zeros, _ and spaces")
    with suppress(ValueError):
        return float(value) if isinstance(value, str) and "e" in value.lower() else value
    return value


def _auto_or_batch(value: Any) -> Any:
    """One sentence for both alternatives; pydantic would report the fault of each."""
    if value == "auto" or (type(value) is int and 1 <= value <= MAX_BATCH):
        return value
    raise PydanticCustomError("batch_size", "it should be auto or a whole number from 1 to {max}", {"max": MAX_BATCH})


def _auto_or_truth(value: Any) -> Any:
    if value == "auto" or isinstance(value, bool):
        return value
    raise PydanticCustomError("switch", "it should be auto, true or false")


def _no_fp16(value: Any) -> Any:
    if value in ("fp16", "float16", "half"):
        raise PydanticCustomError("fp16", "its small range ends diffusion trainings in NaN; use bf16, or auto")
    return value


Integer = Annotated[int, BeforeValidator(_number)]
Number = Annotated[float, BeforeValidator(_number)]
# The upper bounds are far above any use; what lies beyond them is a slip that would end in want of memory.
Count = Annotated[Integer, Field(ge=1, le=1_000_000_000)]
Batch = Annotated[Integer, Field(ge=1, le=MAX_BATCH)]
AutoBatch = Annotated[int | Literal["auto"], PlainValidator(_auto_or_batch)]
Switch = Annotated[bool | Literal["auto"], PlainValidator(_auto_or_truth)]
Index = Annotated[Integer, Field(ge=0, le=1_000_000_000)]
Seed = Annotated[Integer, Field(ge=0, lt=2**63)]
Probability = Annotated[Number, Field(ge=0, lt=1)]
Schedule = Literal["linear", "cosine", "sigmoid"]
Target = Literal["eps", "v", "x0"]
Sampler = Literal["ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde"]
Spacing = Literal["trailing", "uniform", "logsnr"]
Precision = Literal["auto", "bf16", "fp32"]
NoFp16 = Annotated[Precision, BeforeValidator(_no_fp16)]
Device = Literal["auto", "cuda", "cpu"]
Patch = Annotated[Literal[1, 2, 4], BeforeValidator(_number)]  # or true would be 1
ImageSize = Literal[8, 16, 32, 64, 128]
Extractor = Literal["inception", "efficientnet_lite0"]
