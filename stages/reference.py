"""Features of the real images and their mirrors, computed once for all experiments with the same images."""

import json

from ddpm.config import Config
from ddpm.data.dataset import load_packed
from ddpm.evaluation.features import extract, load_extractor, weights_file
from ddpm.runtime.arrays import save_array
from ddpm.runtime.checksums import checksum
from ddpm.runtime.devices import choose_device
from ddpm.runtime.paths import PROCESSED, REFERENCE
from stages import run


def main(config: Config) -> None:
    """Write data/reference/: features.npy and mirrored.npy, (N, D) float32 in the order of the images, and a record."""
    images = load_packed(PROCESSED).images
    weights = weights_file(config.fid.extractor)
    extractor = load_extractor(config.fid.extractor, weights, choose_device(config.device))
    REFERENCE.mkdir(parents=True, exist_ok=True)
    for name, pictures in (("features", images), ("mirrored", images[:, :, ::-1])):
        features = extract(pictures, extractor, config.fid.batch_size)
        save_array(REFERENCE / f"{name}.npy", features)
    about = {
        "extractor": config.fid.extractor,
        "n": features.shape[0],
        "dims": features.shape[1],
        "weights_sha256": checksum(weights),
    }
    (REFERENCE / "reference.json").write_text(json.dumps(about, indent=2, sort_keys=True) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run(main)
