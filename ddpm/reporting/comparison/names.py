"""What settings are called: as the runs in MLflow are."""

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from ddpm.reporting.comparison.cells import SAMPLER


def training_name(cell: Mapping[Any, Any]) -> str:
    """Schedule and epochs."""
    return f"{cell['schedule']} · {epochs_name(cell['epochs'])}"


def epochs_name(epochs: int) -> str:
    """How many epochs."""
    return f"{epochs} epoch{'s' * (epochs != 1)}"


def label(cell: Mapping[Any, Any], settings: Sequence[str]) -> str:
    """Sampler and steps, then each other parameter in which the runs differ."""
    return join(" ".join(_text(cell[name]) for name in SAMPLER), *options(cell, settings))


def options(cell: Mapping[Any, Any], settings: Sequence[str]) -> list[str]:
    """Name and value of each parameter but sampler and steps."""
    return [f"{name.removeprefix('params.')} {_text(cell[name])}" for name in settings if name not in SAMPLER]


def join(*parts: str) -> str:
    """Put the parts of a name together."""
    return " · ".join(parts)


def _text(value: Any) -> str:
    return "not recorded" if pd.isna(value) else str(value)
