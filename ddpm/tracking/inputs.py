"""The data of a run as MLflow's pages show them: a dataset with its source, shape and number of images."""

import json
from typing import TYPE_CHECKING, Any

from ddpm.config import DataConfig
from ddpm.runtime.paths import from_main_root

if TYPE_CHECKING:  # importing MLflow takes seconds, and half of the stages do not track
    from mlflow.entities import DatasetInput

FLOWERS = "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz"
DRAWING = "ddpm/data/sources/drawing.py"
CONTEXT = "mlflow.data.context"  # MLflow's own tag: training | evaluation
DIGITS = 12  # of the checksum; MLflow allows 36, and shows them all


def describe(data: DataConfig, summary: dict[str, Any], sha256: str) -> dict[str, str]:
    """The fields of MLflow's dataset of these packed images, in text.

    Args:
        data: where they come from.
        summary: as `preprocess` wrote it.
        sha256: of the packed array.
    """
    side = data.image_size
    images = {"type": "tensor", "tensor-spec": {"dtype": "uint8", "shape": [-1, side, side, 3]}}
    labels = {"type": "tensor", "tensor-spec": {"dtype": "int64", "shape": [-1]}}
    schema = {"features": json.dumps([images]), "targets": json.dumps([labels])}
    profile = {"images": summary["count"], "classes": len(summary["class_names"]), "image_size": side}
    name, kind, source = _source(data)
    return {
        "name": name,
        "digest": sha256[:DIGITS],
        "source_type": kind,
        "source": json.dumps(source),
        "schema": json.dumps({"mlflow_tensorspec": schema}),
        "profile": json.dumps(profile),
    }


def _source(data: DataConfig) -> tuple[str, str, dict[str, Any]]:
    """Name of the data, and type and content of their source, as `mlflow.data.get_source` reads them."""
    match data.source:
        case "flowers102":
            return data.source, "http", {"url": FLOWERS}
        case "folder":
            folder = from_main_root(data.path or "")
            return folder.name, "local", {"uri": str(folder)}
        case "synthetic":
            return data.source, "code", {"tags": {"mlflow.source.name": DRAWING, "mlflow.source.type": "LOCAL"}}


def dataset_input(fields: dict[str, str], context: str) -> "DatasetInput":
    """What `MlflowClient.log_inputs` takes."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    return DatasetInput(Dataset(**fields), [InputTag(CONTEXT, context)])
