"""Score the samples against the real images."""

import json
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from ddpm.config import Config
from ddpm.data.dataset import load_packed, split_holdout
from ddpm.evaluation.features import extract, load_extractor, weights_file, weights_record
from ddpm.evaluation.memorisation import Memorisation, memorisation
from ddpm.evaluation.protocol import evaluate
from ddpm.evaluation.scores import MIN_IMAGES
from ddpm.reporting.score_plots import save_neighbours
from ddpm.runtime.checkpoint import discard
from ddpm.runtime.devices import choose_device
from ddpm.runtime.errors import MAKE_ROOM, InputError, memory_for
from ddpm.runtime.lineage import stage_key
from ddpm.runtime.paths import PROCESSED, REFERENCE, REPORTS, SAMPLES
from ddpm.runtime.stage_files import load_array, load_json
from stages import run

SHOWN = 8  # samples beside their nearest training images


def main(config: Config) -> None:
    """Read data/reference/, data/samples/ and data/processed/; write reports/fid.json and reports/scores/."""
    discard(stage_key("sample", config.model_dump(mode="json")))  # DVC has stored the samples
    device = choose_device(config.device)
    packed = load_packed(PROCESSED)
    train_rows, heldout_rows = split_holdout(packed.items["id"].tolist(), config.data.holdout)
    features = reference_features(config)
    if len(features) != (count := len(packed.images)):
        raise InputError(f"{REFERENCE}: holds {len(features)} images, not the {count} of {PROCESSED}; run `dvc repro`")
    known = torch.from_numpy(features).to(device)
    train, heldout = known[train_rows], known[heldout_rows]
    real = {"all": known, "train": train, "heldout": heldout}[config.fid.reference]
    if len(real) < MIN_IMAGES:
        raise InputError(
            f"fid.reference: {config.fid.reference} are {len(real)} images, the scores need {MIN_IMAGES}; choose all"
        )
    samples = load_array(SAMPLES / "samples.npy", 4, np.uint8, "sample")
    fake = torch.from_numpy(features_of(samples, config, device)).to(device)
    with memory_for(f"the comparison of {len(fake)} samples with {len(real)} images", MAKE_ROOM):
        evaluation = evaluate(real, fake)
        copies = memorisation(train, heldout, fake, SHOWN)
    folder = REPORTS / "scores"
    neighbours = train_rows[copies.neighbours]
    save_neighbours(samples[copies.samples], packed.images, train_rows, neighbours, folder / "nearest.png")
    write(config, evaluation, copies, {"samples": len(fake), "reference_images": len(real)})


def reference_features(config: Config) -> np.ndarray:
    """Features of all real images, (N, D) float32, as the reference stage left them."""
    about = load_json(REFERENCE / "reference.json", {"extractor"}, "reference")
    if about["extractor"] != config.fid.extractor:
        found = about["extractor"]
        raise InputError(
            f"{REFERENCE}: holds features of {found}, not of {config.fid.extractor}; run `dvc repro reference`"
        )
    return np.array(
        load_array(REFERENCE / "features.npy", 2, np.float32, "reference")
    )  # PyTorch warns of read-only ones


def features_of(samples: np.ndarray, config: Config, device: torch.device) -> np.ndarray:
    """Features of the samples, (M, D) float32."""
    extractor = config.fid.extractor
    return extract(samples, load_extractor(extractor, weights_file(extractor), device), config.fid.batch_size)


def write(config: Config, evaluation: dict[str, Any], copies: Memorisation, counts: dict[str, int]) -> None:
    """Write the scores twice: the main figures as DVC's metrics, and all that a report needs beside its pictures."""
    origin = load_json(SAMPLES / "origin.json", {"model_sha256", "options"}, "sample")
    scores, ratio = evaluation["scores"], asdict(copies.ratio) if copies.ratio else None
    # Under the name of the extractor, so that no table ever mixes scores of different networks.
    metrics = {name: scores[name]["value"] for name in ("fid", "kid", "precision", "recall")}
    metrics |= {f"fid_{name}": scores["fid"][name] for name in ("low", "high")}
    if floor := evaluation["floor"]:
        metrics |= {"fid_same_n": floor["scores"]["fid"]["model"], "fid_floor": floor["scores"]["fid"]["real"]}
    metrics |= {"memorisation": ratio["value"]} if ratio else {}
    save_json({config.fid.extractor: metrics}, "fid.json")
    about = {
        "extractor": config.fid.extractor,
        "weights": weights_record(config.fid.extractor),
        "model_sha256": origin["model_sha256"],
        "sampling": origin["options"],
        "reference": config.fid.reference,
        **counts,
        **evaluation,
        "scores": scores | {"memorisation": ratio},
        "no_memorisation": copies.reason,
    }
    save_json(about, "scores/scores.json")
    fid = scores["fid"]
    print(
        f"FID {fid['value']:.2f} [{fid['low']:.2f}, {fid['high']:.2f}] ({config.fid.extractor} features, "
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


if __name__ == "__main__":
    run(main)
