"""The card of an exported model: what it is, what it was made of, how good it is and what it cannot do."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2

from ddpm.data.class_names import number_of_one
from ddpm.evaluation.verdict import verdict
from ddpm.model.model_file import CONFIG_FILE
from ddpm.reporting.report import render
from ddpm.runtime.errors import InputError


def model_card(
    config: dict[str, Any], sha256: str, scores: dict[str, Any] | None, formats: Sequence[str], data: str | None = None
) -> str:
    """Describe a model in Markdown, with the YAML front matter that Hugging Face reads.

    Args:
        config: the content of config.json, see `model_file.save_model`.
        sha256: checksum of model.safetensors.
        scores: from `scores_of`.
        formats: diffusers, half or both, as `python -m ddpm export` has them.
        data: what the training images are, in words; without it, what config states.

    Raises:
        InputError: config does not state how the model was trained.
    """
    context = {"model": config, "training": config.get("training"), "sha256": sha256, "scores": scores}
    context |= {"verdict": verdict(scores) if scores else [], "number": number_of_one(config["class_names"])}
    try:
        return render(context | {"formats": formats, "data": " ".join((data or "").split())}, "model_card.md.j2")
    except jinja2.UndefinedError as error:
        raise InputError(
            f"{CONFIG_FILE}: does not state how the model was trained ({error}); train it with `dvc repro train`"
        ) from None


def scores_of(sha256: str, path: Path) -> dict[str, Any] | None:
    """Read the scores of the fid stage if they are of the model with these weights; None if there are none, or others.

    The rule is the checksum of the weights, which `sample` notes beside its images and `fid` takes over into the
    scores: neither a name nor a date, so scores of an earlier model are never shown for a later one.
    """
    try:
        scores = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: cannot be read as JSON ({error}); run `dvc repro fid`") from None
    return scores if scores.get("model_sha256") == sha256 else None
