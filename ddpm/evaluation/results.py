"""The files of the scores: the features that they are computed from, and what a report reads."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ddpm.config import FidConfig
from ddpm.evaluation.features import extract, load_extractor, weights_file, weights_record
from ddpm.evaluation.memorisation import Memorisation
from ddpm.evaluation.protocol import SCORES
from ddpm.evaluation.verdict import verdict
from ddpm.runtime.errors import InputError
from ddpm.runtime.paths import REFERENCE, REPORTS, SAMPLES
from ddpm.runtime.stage_files import load_array, load_json


def reference_features(config: FidConfig, name: str = "features") -> np.ndarray:
    """Features of all real images, or by the name of "mirrored" of their mirrors: (N, D) float32.

    Raises:
        InputError: the stage has left none, or those of another network.
    """
    about = load_json(REFERENCE / "reference.json", {"extractor"}, "reference")
    if about["extractor"] != config.extractor:
        found = about["extractor"]
        raise InputError(
            f"{REFERENCE}: holds features of {found}, not of {config.extractor}; run `dvc repro reference`"
        )
    return np.array(
        load_array(REFERENCE / f"{name}.npy", 2, np.float32, "reference")
    )  # PyTorch warns of read-only ones


def features_of(samples: np.ndarray, config: FidConfig, device: torch.device) -> np.ndarray:
    """Features of the samples, (M, D) float32."""
    extractor = config.extractor
    return extract(samples, load_extractor(extractor, weights_file(extractor), device), config.batch_size)


def write(config: FidConfig, evaluation: dict[str, Any], copies: Memorisation, counts: dict[str, int]) -> None:
    """Write the scores twice: the main figures as DVC's metrics, and all that a report needs beside its pictures."""
    origin = load_json(SAMPLES / "origin.json", {"model_sha256", "options"}, "sample")
    scores, ratio = evaluation["scores"], asdict(copies.ratio) if copies.ratio else None
    # Under the name of the extractor, so that no table ever mixes scores of different networks.
    metrics = {name: scores[name]["value"] for name in SCORES}
    metrics |= {f"fid_{name}": scores["fid"][name] for name in ("low", "high")}
    if floor := evaluation["floor"]:
        metrics |= {"fid_same_n": floor["scores"]["fid"]["model"], "fid_floor": floor["scores"]["fid"]["real"]}
    metrics |= {"memorisation": ratio["value"]} if ratio else {}
    save_json({config.extractor: metrics}, "fid.json")
    about = {
        "extractor": config.extractor,
        "weights": weights_record(config.extractor),
        "model_sha256": origin["model_sha256"],
        "sampling": origin["options"],
        "reference": config.reference,
        **counts,
        **evaluation,
        "scores": scores | {"memorisation": ratio},
        "no_memorisation": copies.reason,
        "duplicates": copies.duplicates,
    }
    save_json(about, "scores/scores.json")
    print("\n".join(verdict(about)))
    fid = scores["fid"]
    print(
        f"FID {fid['value']:.2f} [{fid['low']:.2f}, {fid['high']:.2f}] ({config.extractor} features, "
        f"{counts['samples']} samples against {counts['reference_images']} images)"
    )
    if floor:
        print(
            f"With {floor['images']} samples {floor['scores']['fid']['model']:.2f}, and as many real images in their "
            f"place {floor['scores']['fid']['real']:.2f}"
        )


def save_json(content: dict[str, Any], name: str) -> None:
    """Write a file of reports/."""
    (REPORTS / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
