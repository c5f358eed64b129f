"""Is everything there that the pipeline will need? Each check is quick and changes nothing."""

import getpass
import http.client
import importlib.util
import os
import shutil
import sqlite3
import urllib.request
from base64 import b64encode
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from urllib.parse import unquote, urlsplit

import torch

from ddpm.config import Config
from ddpm.data.sources.flowers102 import ARCHIVE
from ddpm.data.sources.folder import Folder
from ddpm.evaluation.features import weights_file
from ddpm.runtime.errors import InputError
from ddpm.runtime.paths import PROCESSED, RAW, WEIGHTS, from_main_root
from ddpm.runtime.stage_files import load_json
from ddpm.tracking.database import check_version, deleted, location, masked

PACKAGES = ("torch", "torchvision", "mlflow", "dvc", "pytorch_fid", "safetensors", "pandas", "matplotlib")
FLOWERS = {"train": 1020, "val": 1020, "test": 6149}  # images of each official split
ARCHIVE_BYTES = 345_000_000  # of Flowers-102, which is never unpacked
INCEPTION_BYTES = 96_000_000  # of its weights
SERVER_SECONDS = 5
FREE_SHARE = 0.9  # of a GPU's memory; less means that somebody else is at work there


@dataclass(frozen=True)
class Check:
    """One line: what was looked at, how it is, and what to do about it.

    state: OK | later (a stage that has not run yet will make it) | problem.
    """

    what: str
    state: Literal["OK", "later", "problem"]
    sentence: str


def run_checks(config: Config, parameters: int, device: torch.device) -> Iterator[Check]:
    """Check packages, images, weights, disk, GPU memory and MLflow.

    Args:
        config: valid parameters.
        parameters: of the network.
        device: where the work will be done.
    """
    images: Images | InputError
    try:
        images = find_images(config)
    except InputError as error:
        images = error
    yield _packages()
    yield from _user()
    yield _images(images)
    yield _weights(config)
    yield _disk(config, parameters, 0 if isinstance(images, InputError) else images.count)
    if device.type == "cuda":
        yield _gpu(device)
    if config.tracking.enabled:
        yield _mlflow(config.tracking.experiment)


@dataclass(frozen=True)
class Images:
    """How many there are, as the parameters ask for them; `packed`: they lie in data/processed."""

    count: int
    packed: bool


def find_images(config: Config) -> Images:
    """Count the images of the source, and see whether data/processed holds them.

    Raises:
        InputError: see `Folder.find`; not where data/processed may hold them, as after `dvc pull`.
    """
    packed = _packed(config)
    try:
        expected = _expected(config)
    except InputError:
        if packed is None:
            raise
        return Images(packed[0], packed=True)
    if packed is not None and sum(packed) == expected:
        return Images(packed[0], packed=True)
    return Images(expected, packed=False)


def count_images(config: Config) -> int:
    """Number of images; see `find_images`."""
    return find_images(config).count


def _packed(config: Config) -> tuple[int, int] | None:
    """Number of packed images, and of those that were left out, if source and size are those of the parameters."""
    try:
        summary = load_json(PROCESSED / "summary.json", {"source", "image_size", "count", "skipped"}, "preprocess")
    except InputError:
        return None
    fits = (summary["source"], summary["image_size"]) == (config.data.source, config.data.image_size)
    return (summary["count"], len(summary["skipped"])) if fits else None


def _expected(config: Config) -> int:
    match config.data.source:
        case "flowers102":
            return sum(FLOWERS[split] for split in config.data.splits)
        case "synthetic":
            return config.data.synthetic.count
        case "folder":
            return len(Folder(RAW, from_main_root(config.data.path or "")).find().ids)


def disk_bytes(config: Config, parameters: int, images: int) -> int:
    """Most bytes that one experiment writes: the download, outputs, here and in DVC's cache, and a checkpoint."""
    pixels = 3 * config.data.image_size**2
    features = 4 * 2048 * images
    outputs = pixels * (images + config.sample.n) + features + 4 * parameters
    # A checkpoint is weights, moments and average, and the newest is written beside the one before; MLflow has a copy
    # of the model.
    return _download_bytes(config) + 2 * outputs + 2 * 16 * parameters + 4 * parameters


def _download_bytes(config: Config) -> int:
    """Most bytes that the download stage will still write: to the store of downloads, its output and DVC's cache."""
    archive = config.data.source == "flowers102" and not (RAW / ARCHIVE).exists()
    weights = config.fid.extractor == "inception" and not _fetched("inception")
    return 3 * (archive * ARCHIVE_BYTES + weights * INCEPTION_BYTES)


def _fetched(extractor: str) -> bool:
    """Whether the download stage has run for this extractor; for another one, `dvc repro` runs it again."""
    try:
        return load_json(WEIGHTS / "weights.json", {"extractor"}, "download")["extractor"] == extractor
    except InputError:
        return (WEIGHTS / "weights.json").exists()  # damaged, for which `weights_file` has a sentence


def _packages() -> Check:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return Check("packages", "problem", f"{', '.join(missing)} missing; run `make install`")
    return Check("packages", "OK", f"PyTorch {torch.__version__}")


def _user() -> Iterator[Check]:
    """DVC asks for the name of the user and stops where there is none, as in a container that runs as a number."""
    try:
        getpass.getuser()
    except (KeyError, OSError):  # OSError from Python 3.13 on
        remedy = "DVC stops without one; run `export USER=me`"
        yield Check("user", "problem", f"the user id {os.getuid()} has no name, and {remedy}")


def _images(found: Images | InputError) -> Check:
    if isinstance(found, InputError):
        return Check("images", "problem", str(found))
    if not found.packed:
        return Check("images", "later", f"{found.count:,} expected; `dvc repro preprocess` makes {PROCESSED}")
    return Check("images", "OK", f"{found.count:,} in {PROCESSED}")


def _weights(config: Config) -> Check:
    name = config.fid.extractor
    if name == "inception" and not _fetched(name):
        local = config.fid.weights
        if local and not from_main_root(local).is_file():
            return Check("feature weights", "problem", f"fid.weights: {local} is no file; correct it or set it to null")
        return Check("feature weights", "later", "`dvc repro download` fetches them" if not local else f"from {local}")
    try:
        file = weights_file(name)
    except InputError as error:
        return Check("feature weights", "problem", str(error))
    if not file.exists():
        return Check("feature weights", "problem", f"{file} is missing; run `dvc repro --force download`")
    return Check("feature weights", "OK", f"{name}, {file.name}")


def _disk(config: Config, parameters: int, images: int) -> Check:
    wanted = disk_bytes(config, parameters, images)
    free = shutil.disk_usage(".").free
    sentence = f"{wanted / 1e9:.1f} GB wanted, {free / 1e9:.1f} GB free"
    if wanted > free:
        return Check("disk", "problem", f"{sentence}; free some space, `dvc gc --workspace` clears old results")
    return Check("disk", "OK", sentence)


def _gpu(device: torch.device) -> Check:
    free, total = torch.cuda.mem_get_info(device)
    sentence = f"{free / 1e9:.1f} of {total / 1e9:.1f} GB free"
    if free < FREE_SHARE * total:
        return Check("GPU memory", "problem", f"{sentence}; `nvidia-smi` shows who has the rest")
    return Check("GPU memory", "OK", sentence)


def _mlflow(experiment: str) -> Check:
    try:
        uri, database = location()
    except InputError as error:
        return Check("MLflow", "problem", str(error))
    if uri.startswith("sqlite:"):
        return _database(database, experiment)
    if uri.startswith("http"):
        try:
            with urllib.request.urlopen(_health(uri), timeout=SERVER_SECONDS):
                pass
        except (OSError, ValueError, http.client.HTTPException) as error:
            remedy = "start it, or correct MLFLOW_TRACKING_URI; runs without it are kept for `python -m ddpm sync`"
            return Check("MLflow", "problem", masked(f"{uri} does not answer ({error}); {remedy}"))
    return Check("MLflow", "OK", masked(uri))


def _health(uri: str) -> urllib.request.Request:
    """What to ask a tracking server; urllib knows no user and password in an address, which MLflow does."""
    address = urlsplit(uri)
    place = address._replace(netloc=address.netloc.rpartition("@")[2], path=f"{address.path.rstrip('/')}/health")
    request = urllib.request.Request(place.geturl())
    if address.username:
        account = f"{unquote(address.username)}:{unquote(address.password or '')}"
        request.add_header("Authorization", f"Basic {b64encode(account.encode()).decode()}")
    return request


def _database(path: Path, experiment: str) -> Check:
    if not path.exists():
        if os.access(path.parent, os.W_OK):
            return Check("MLflow", "later", f"`dvc repro` makes {path}")
        return Check("MLflow", "problem", f"{path.parent} cannot be written; set MLFLOW_TRACKING_URI to another place")
    try:
        with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True, timeout=1)) as connection:
            check_version(connection, path)
            connection.row_factory = sqlite3.Row
            experiments = [dict(row) for row in connection.execute("SELECT * FROM experiments")]
    except InputError as error:
        return Check("MLflow", "problem", str(error))
    except sqlite3.Error as error:
        return Check("MLflow", "problem", f"{path} cannot be read ({error}); restore it, or move it away to begin anew")
    for row in experiments:
        if row.get("name") == experiment and row["lifecycle_stage"] == "deleted":
            return Check("MLflow", "problem", deleted(experiment, row["experiment_id"]))
    return Check("MLflow", "OK", str(path))
