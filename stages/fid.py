"""Score the samples against the real images."""

import json

import numpy as np

from ddpm.checkpoint import discard
from ddpm.config import Config
from ddpm.devices import choose_device
from ddpm.errors import InputError
from ddpm.features import extract, load_extractor, weights_file
from ddpm.lineage import stage_key
from ddpm.paths import REFERENCE, REPORTS, SAMPLES
from ddpm.scores import fid, kid
from stages import run


def main(config: Config) -> None:
    """Read data/samples/, data/reference/ and data/weights/; write reports/fid.json."""
    discard(stage_key("sample", config.model_dump(mode="json")))  # DVC has stored the samples
    extractor = config.fid.extractor
    reference = json.loads((REFERENCE / "reference.json").read_text(encoding="utf-8"))
    real = np.load(REFERENCE / "features.npy")
    if reference["extractor"] != extractor:
        found = reference["extractor"]
        raise InputError(f"{REFERENCE}: holds features of {found}, not of {extractor}; run `dvc repro reference`")
    network = load_extractor(extractor, weights_file(extractor), choose_device(config.device))
    samples = np.load(SAMPLES / "samples.npy", mmap_mode="r")
    origin = json.loads((SAMPLES / "origin.json").read_text(encoding="utf-8"))
    fake = extract(samples, network, config.fid.batch_size)
    kid_mean, kid_error = kid(real, fake)
    # Only the Inception scores go by the plain names, so that no table ever mixes them with another network's.
    suffix = "" if extractor == "inception" else f"_{extractor}"
    scores = {
        f"fid{suffix}": fid(real, fake),
        f"kid{suffix}": kid_mean,
        f"kid_error{suffix}": kid_error,
        "extractor": extractor,
        "weights_sha256": reference["weights_sha256"],
        "model_sha256": origin["model_sha256"],
        "samples": len(fake),
        "sampling": ", ".join(f"{name} {value}" for name, value in origin["options"].items()),
        "reference_images": len(real),
    }
    (REPORTS / "fid.json").write_text(json.dumps(scores, indent=2) + "\n", encoding="utf-8")
    print(f"FID {scores[f'fid{suffix}']:.2f} ({extractor} features, {len(fake)} samples against {len(real)} images)")


if __name__ == "__main__":
    run(main)
