"""A trained model as a folder: model.safetensors and config.json, which together are all that sampling needs.

Apart from ddpm/model/trained.py, so that training does not depend on how the model is used.
"""

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from ddpm.runtime.checksums import checksum
from ddpm.runtime.errors import InputError
from ddpm.runtime.pointers import REASON, is_pointer_file

WEIGHTS_FILE = "model.safetensors"
CONFIG_FILE = "config.json"
CARD = "README.md"  # of an exported model


def save_model(folder: Path, weights: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write a model folder, with the same bytes for the same content.

    Args:
        folder: created when missing.
        weights: a state dict of `UNet`.
        config: model, diffusion, schedule, image_size, class_names, class_counts and how it was trained; the checksum
            of the weights is added.
    """
    folder.mkdir(parents=True, exist_ok=True)
    content = save({name: tensor.contiguous().cpu() for name, tensor in weights.items()})
    (folder / WEIGHTS_FILE).write_bytes(content)  # unlike save_file, which hides a full disk in an error of its own
    config = config | {"weights_sha256": checksum(folder / WEIGHTS_FILE)}
    (folder / CONFIG_FILE).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")


def save_half(folder: Path, weights: dict[str, Tensor], config: dict[str, Any]) -> None:
    """Write a model folder with weights of two bytes, float16: closer than bfloat16 to numbers of this size.

    Whoever reads it, reads float32: sampling does not change with the file.

    Raises:
        InputError: a weight is beyond the range of float16.
    """
    half = {name: tensor.half() for name, tensor in weights.items()}
    if beyond := next((name for name, tensor in half.items() if not tensor.isfinite().all()), None):
        raise InputError(f"{beyond}: a weight does not fit into float16; keep this model as it is")
    save_model(folder, half, config)


def is_half(folder: Path) -> bool:
    """Whether a model folder is one that `save_half` wrote; a damaged one is not known to be."""
    try:
        with safe_open(folder / WEIGHTS_FILE, framework="pt") as weights:
            return all(weights.get_slice(name).get_dtype() == "F16" for name in weights.keys())  # noqa: SIM118
    except SafetensorError:
        return False


def read_model(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_model` wrote: weights, on the CPU, and config.

    Raises:
        InputError: the folder holds no such files, damaged ones, or weights of another config.
    """
    if is_pointer_file(folder / WEIGHTS_FILE):
        raise InputError(f"{folder / WEIGHTS_FILE}: {REASON}")
    try:
        config = json.loads((folder / CONFIG_FILE).read_text(encoding="utf-8"))
        weights = load_file(folder / WEIGHTS_FILE)
        if not isinstance(config, dict):
            raise ValueError(f"{CONFIG_FILE} is not a description of a model")
    except (OSError, ValueError, RecursionError, SafetensorError) as error:
        raise InputError(f"{folder}: no model can be read here ({error}); train one with `dvc repro train`") from None
    expected = config.get("weights_sha256")  # missing from models of earlier versions
    if expected and (found := checksum(folder / WEIGHTS_FILE)) != expected:
        raise InputError(
            f"{folder / WEIGHTS_FILE}: sha256 is {found}, but {CONFIG_FILE} belongs to {expected}, so it is damaged "
            "or of another model; copy both anew, or run `dvc checkout`"
        )
    return weights, config


def unseen_classes(config: dict[str, Any]) -> list[str]:
    """Names of the classes that a conditional model cannot know, because none of its training images shows them."""
    if not config["model"]["conditional"]:
        return []
    return [name for name, count in zip(config["class_names"], config["class_counts"], strict=True) if not count]
