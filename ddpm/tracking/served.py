"""What makes a model folder one that `mlflow models serve` can generate with; nothing in it is pickled."""

import warnings
from importlib.metadata import version
from pathlib import Path
from typing import Any

import ddpm

# All that sampling imports. Named here, because MLflow would load the model to find out, which takes a minute.
REQUIREMENTS = ("torch", "numpy", "pandas", "pillow", "safetensors", "psutil", "pydantic", "pyyaml")
LOADER = "ddpm.tracking.pyfunc"


def write_serving_files(folder: Path) -> None:
    """Write MLmodel, the code of this package and the versions of its packages; they belong into the model folder.

    Args:
        folder: does not exist yet.
    """
    import mlflow
    from mlflow.models import ModelSignature
    from mlflow.types import ColSpec, Schema
    from mlflow.types.schema import AnyType

    types: dict[str, Any] = {"n": "long", "seed": "long", "steps": "long", "sampler": "string", "spacing": "string"}
    # For a conditional model; any type, because MLflow would refuse 2 where 2.0 is meant.
    types |= {"class": "string", "guidance": AnyType()}  # type: ignore[no-untyped-call]
    schema = Schema([ColSpec(type=kind, name=name, required=name == "n") for name, kind in types.items()])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it would like an example of an input
        mlflow.pyfunc.save_model(
            folder,
            loader_module=LOADER,
            code_paths=[str(Path(ddpm.__file__).parent)],
            # Without "+cpu": how PyTorch was built here does not matter elsewhere.
            pip_requirements=[f"{name}=={version(name).partition('+')[0]}" for name in REQUIREMENTS],
            signature=ModelSignature(inputs=schema),
        )
