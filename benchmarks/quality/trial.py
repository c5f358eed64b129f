"""One trial of `benchmarks.quality.recipe`: the pipeline's own train, sample and fid, trained for so many minutes."""

import contextlib
import gc
import hashlib
import json
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
import yaml

from benchmarks import write
from ddpm.commands.estimate import seconds_of, step_seconds
from ddpm.config import Config, load_config, parse_config
from ddpm.data.dataset import PackedImages, load_packed
from ddpm.evaluation.features import weights_file, weights_record
from ddpm.evaluation.results import reference_features
from ddpm.network.unet import count_parameters
from ddpm.runtime.devices import choose_device
from ddpm.runtime.distributed import processes
from ddpm.runtime.errors import InputError, RunError, is_out_of_memory
from ddpm.runtime.forecast import peak_memory
from ddpm.runtime.paths import PROCESSED, REFERENCE, REPORTS, WEIGHTS
from ddpm.runtime.stage_files import load_json
from ddpm.training.setup import prepare
from stages import fid, sample, train

WORK = Path(".recipe")
# What the stages read: the data as `dvc repro reference` leaves them, and the code, by which checkpoints are known.
LINKS = (PROCESSED, REFERENCE, WEIGHTS, Path("ddpm"), Path("stages"), Path("dvc.yaml"))
NOT_TRAINING = ("sample", "fid", "tracking")  # the groups that decide nothing of the model


def trial(params: dict[str, Any], minutes: float, place: str, rate: float | None = None) -> dict[str, Any]:
    """Train with these parameters for so many minutes, sample and score; goes on where a killed one was.

    How many epochs the minutes are is measured first, and noted; then the stages run with exactly these epochs, so that
    `dvc repro` with the same parameters repeats the trial. Trials that differ in `sample` alone share their training.

    Args:
        params: all of params.yaml; `epochs` is set here, and tracking is off.
        minutes: of training on this device, with the compilation and without sampling and scores.
        place: the device and the images, of which another one would take other epochs for the same minutes.
        rate: images/s of this network as measured before; None to measure it now.

    Returns:
        epochs, images_per_second and parameters; train_seconds (as it was on the clock, None where it was interrupted)
        and peak_memory (bytes of a GPU); extractor, samples, reference_images, and scores and floor as
        `evaluation.evaluate` has them. Or failed: the sentence that says why there are none.

    Raises:
        InputError: several processes are asked for, by which the stage would replace this one.
    """
    if processes() > 1:
        raise InputError("DDPM_PROCESSES: a trial is trained by one process; unset it")
    quiet = params["tracking"] | {"enabled": False}
    params = params | {"tracking": quiet, "fid": params["fid"] | {"every": 0}}
    with workspace({name: value for name, value in params.items() if name not in NOT_TRAINING}, minutes, place):
        try:
            return _trial(params, minutes, rate)
        except (RunError, RuntimeError, MemoryError) as error:
            if not isinstance(error, RunError) and not is_out_of_memory(error):
                raise
            return {"failed": str(error).splitlines()[0]}
        finally:
            _forget()


def check_data(config: Config) -> None:
    """Read what a score wants, so that a fault is reported before minutes are spent.

    Raises:
        InputError: features or weights are missing, or are of another extractor.
    """
    reference_features(config.fid)
    weights_record(config.fid.extractor)
    if not (file := weights_file(config.fid.extractor)).exists():
        raise InputError(f"{file}: no such file; run `dvc repro --force download`")


@contextlib.contextmanager
def workspace(training: dict[str, Any], minutes: float, place: str) -> Iterator[None]:
    """Work in a folder of this training, with links to what the stages read."""
    folder = WORK / digest({**training, "epochs": None, "minutes": minutes, "place": place})
    for name in LINKS:
        link = folder / name
        link.parent.mkdir(parents=True, exist_ok=True)
        target = os.path.relpath(name, link.parent)  # relative, so that it holds when the repository is moved or copied
        if not link.is_symlink() or str(link.readlink()) != target:
            link.unlink(missing_ok=True)
            link.symlink_to(target)
    with contextlib.chdir(folder):
        yield


def plan(
    config: Config, packed: PackedImages, device: torch.device, minutes: float, rate: float | None = None
) -> dict[str, Any]:
    """Find how many epochs these parameters train in so many minutes, of which torch.compile takes its part."""
    training = prepare(config, packed, device)
    batch = config.train.batch_size
    first = 0.0 if rate else seconds_of(lambda: training.train_step(0), device)
    seconds = batch / rate if rate else step_seconds(training)
    steps = max(1.0, (60 * minutes - first) / seconds)
    return {
        "epochs": max(1, int(steps * batch / len(training.train_set))),
        "images_per_second": batch / seconds,
        "parameters": count_parameters(training.unet),
    }


def digest(content: object) -> str:
    """A short name for parameters and what else decides a result."""
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def _trial(params: dict[str, Any], minutes: float, rate: float | None) -> dict[str, Any]:
    planned, trained = Path("plan.json"), Path("trained.json")
    began_before = planned.exists()
    if not began_before:
        config = parse_config(params)
        write(planned, plan(config, load_packed(PROCESSED), choose_device(config.device), minutes, rate))
        _forget()
    facts = json.loads(planned.read_text())
    Path("params.yaml").write_text(yaml.safe_dump(params | {"epochs": facts["epochs"]}, sort_keys=False))
    config = load_config()
    if not trained.exists():
        started = time.monotonic()
        train.main(config)
        seconds = None if began_before else round(time.monotonic() - started, 1)
        device = choose_device(config.device)
        memory = int(peak_memory(device)) if device.type == "cuda" else None
        write(trained, {"train_seconds": seconds, "peak_memory": memory})
        _forget()
    sample.main(config)
    fid.main(config)
    kept = ("extractor", "samples", "reference_images", "scores", "floor")
    found = load_json(REPORTS / "scores" / "scores.json", set(kept), "fid")
    return facts | json.loads(trained.read_text()) | {name: found[name] for name in kept}


def _forget() -> None:
    """Give back what the last network held, so that the next one is compiled and measured as if it were alone."""
    gc.collect()
    torch._dynamo.reset()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
