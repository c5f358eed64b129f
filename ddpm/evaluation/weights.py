"""Weights of the feature extractor that scores the samples: found or fetched once, and named in weights.json."""

import json
import shutil
from importlib.metadata import version
from pathlib import Path

from ddpm.config import FidConfig
from ddpm.data import downloads
from ddpm.data.downloads import Remote
from ddpm.evaluation import efficientnet
from ddpm.runtime.checksums import checksum
from ddpm.runtime.errors import InputError
from ddpm.runtime.interpreter import require
from ddpm.runtime.paths import from_main_root

# Of the file to which pytorch-fid's address leads; torch-fidelity publishes the same one.
INCEPTION_SHA256 = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
INCEPTION_MIRRORS = (
    "https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/weights-inception-2015-12-05-6726825d.pth",
)


def remote_files(fid: FidConfig) -> list[Remote]:
    """List what `fetch` needs from the network.

    Raises:
        InputError: `fid.weights` names no file.
    """
    if fid.extractor != "inception" or _local_file(fid):
        return []
    return [_inception()]


def fetch(fid: FidConfig, folder: Path) -> None:
    """Write weights.json into `folder`, and for inception the weights file beside it.

    weights.json has: extractor; file (name only), sha256; origin (an address, a package with its version, or a
    local file). The weights of efficientnet_lite0 stay in their package.

    Raises:
        InputError: the weights are missing, cannot be fetched, or are not the ones that scores are published with.
    """
    folder.mkdir(parents=True, exist_ok=True)
    file, origin = _fetch_inception(fid, folder) if fid.extractor == "inception" else _find_efficientnet()
    content = {
        "extractor": fid.extractor,
        "file": file.name,
        "sha256": checksum(file),
        "origin": origin,
    }
    text = json.dumps(content, indent=2, sort_keys=True) + "\n"
    (folder / "weights.json").write_text(text, encoding="utf-8")


def _fetch_inception(fid: FidConfig, folder: Path) -> tuple[Path, str]:
    remote = _inception()
    local = _local_file(fid)
    if not local:
        downloads.place([remote], folder)
        return folder / remote.name, remote.urls[0]
    downloads.verify(local, remote)
    # A copy, not a link: DVC may change the permissions of its outputs, but not those of the user's file.
    shutil.copyfile(local, folder / remote.name)
    return folder / remote.name, f"local file {local.name}"


def _local_file(fid: FidConfig) -> Path | None:
    if not fid.weights:
        return None
    path = from_main_root(fid.weights)
    if not path.is_file():
        raise InputError(f"fid.weights: {path} is no file; correct the path, or set null to download the weights")
    return path


def _inception() -> Remote:
    require("pytorch_fid")
    # Imported here because it imports torch, which takes seconds.
    from pytorch_fid.inception import FID_WEIGHTS_URL

    name = FID_WEIGHTS_URL.rsplit("/", 1)[1]
    return Remote(name, (FID_WEIGHTS_URL, *INCEPTION_MIRRORS), "sha256", INCEPTION_SHA256)


def _find_efficientnet() -> tuple[Path, str]:
    package = efficientnet.WEIGHTS_PACKAGE
    return efficientnet.weights_file(), f"package {package} {version(package)}"
