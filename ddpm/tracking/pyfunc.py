"""The model behind `mlflow models serve`: rows of wishes in, pictures out."""

import base64
import io
import numbers
from typing import Any

import numpy as np
import pandas as pd
from mlflow import MlflowException
from PIL import Image

from ddpm.model.trained import DiffusionModel, load_model
from ddpm.runtime.errors import InputError

MAX_IMAGES = 256  # per row: one request shall not occupy the server for hours


class Generator:
    """What MLflow calls a python function."""

    def __init__(self, model: DiffusionModel) -> None:
        self._model = model

    def predict(self, wishes: pd.DataFrame) -> list[list[str]]:
        """Generate for each row.

        Args:
            wishes: columns n and, if wanted, seed (default 0), steps (50), sampler (ddim) and spacing (trailing); for
                a conditional model also class (any) and guidance (1).

        Returns:
            For each row n PNG files, base64.

        Raises:
            MlflowException: a wish that cannot be fulfilled; the server answers with its sentence and status 400.
        """
        try:
            rows = wishes.astype(object).where(wishes.notna(), None).to_dict("records")
            return [[_png(image) for image in self._generate(row)] for row in rows]
        except InputError as error:
            raise MlflowException.invalid_parameter_value(str(error)) from None

    def _generate(self, row: dict[Any, Any]) -> np.ndarray:
        wish = {name: value for name, value in row.items() if value is not None}  # other rows may have named it
        n, guidance = wish.pop("n"), wish.get("guidance", 1)
        if n > MAX_IMAGES:
            raise InputError(f"n: found {n}, choose 1 to {MAX_IMAGES}")
        if not isinstance(guidance, numbers.Real):
            raise InputError(f"guidance: found {guidance!r}, expected a number")
        return self._model.sample(n, label=wish.pop("class", None), **wish)


def _load_pyfunc(folder: str) -> Generator:  # the name is MLflow's
    return Generator(load_model(folder))


def _png(image: np.ndarray) -> str:
    file = io.BytesIO()
    Image.fromarray(image).save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode()
