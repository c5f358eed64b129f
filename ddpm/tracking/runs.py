"""MLflow, the record of what was run: DVC keeps the results, so a failing store never costs an experiment."""

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ddpm.config import Config, DataConfig
from ddpm.runtime.errors import InputError, RunError
from ddpm.runtime.lineage import origin
from ddpm.tracking import unsent
from ddpm.tracking.database import StoreError, location, prepare
from ddpm.tracking.identity import SCORING, TRAINING, params_of
from ddpm.tracking.inputs import describe
from ddpm.tracking.processes import new_attempt
from ddpm.tracking.recorder import Patience, Recorder, deliver, reason
from ddpm.tracking.served import write_serving_files
from ddpm.tracking.store import Entry, Work

CLOCK = time.time() - time.monotonic()


class Tracker:
    """One MLflow run to write to. Nothing here ever fails: what the store cannot take is kept for `sync`."""

    def __init__(self, record: Callable[[Entry], None] | None) -> None:
        self._enabled = record is not None
        self._record = record or (lambda entry: None)

    def tags(self, tags: dict[str, str]) -> None:
        """Set or replace tags."""
        self._record({"tags": tags})

    def metrics(self, metrics: dict[str, float], step: int = 0) -> None:
        """Add one point to each of these curves, in a single call to the store."""
        self._record(_points(metrics, step))

    def scores(self, scores: dict[str, float]) -> None:
        """Add metrics that are also those of the trained model, on its own page."""
        self._record(_points(scores, step=0) | {"of_model": True})

    def dataset(self, data: DataConfig, summary: dict[str, Any], sha256: str, context: str) -> None:
        """Name the data.

        Args:
            data: where the images come from.
            summary: of the packed images, as `preprocess` wrote it.
            sha256: of the packed array.
            context: what the run does with them: training | evaluation.
        """
        self._record({"dataset": describe(data, summary, sha256), "context": context})

    def image(self, key: str, image: np.ndarray, step: int) -> None:
        """Add a picture, (H, W, 3) uint8, to a series that the UI can scroll through by step."""
        self._record({"image": image, "key": key, "step": step, "time": _now()})

    def artifacts(self, path: Path, folder: str | None = None) -> None:
        """Copy a file, or all files below a folder, to `folder` of the run's artifacts (default: their root)."""
        self._record({"artifacts": str(path), "folder": folder})

    def model(self, folder: Path, scratch: Path) -> None:
        """Log a model folder, with what `mlflow models serve` needs beside it, as the model of the run.

        A server of MLflow 2 knows no such models, and gets it as the folder `model` of the run's artifacts.

        Args:
            folder: has the weights and their configuration.
            scratch: a folder for what is made on the way; it is somebody's to delete, if this process is killed.
        """
        if not self._enabled:
            return
        from ddpm.model.model_file import (  # with torch, which the other stages' runs do without
            CONFIG_FILE,
            WEIGHTS_FILE,
        )

        files = [folder / WEIGHTS_FILE, folder / CONFIG_FILE]  # and none of what a user keeps beside them
        try:
            with tempfile.TemporaryDirectory(dir=scratch) as extra:
                packed = Path(extra) / "model"
                write_serving_files(packed)
                for file in files:
                    shutil.copy(file, packed)
                self._record({"artifacts": str(packed), "folder": "model", "of_model": True})
        except Exception as error:
            print(f"warning: `mlflow models serve` will not know this model ({reason(error)})", file=sys.stderr)
            for file in files:
                self.artifacts(file, "model")

    def end(self, status: str) -> None:
        """Set the final status (FINISHED, FAILED, KILLED) and the end time of a run that this stage has opened."""
        self._record({"end": status, "time": _now()})


@contextmanager
def training_run(config: Config, key: str, resumed: bool = False) -> Iterator[Tracker]:
    """Track a training in a run that ends with the block: FINISHED, FAILED by an exception or KILLED by a signal.

    Args:
        config: parameters of the training, recorded in the run.
        key: identity of the training (`lineage.stage_key`), by which later stages find the run.
        resumed: the training goes on from a checkpoint, so go on with the run of its interrupted attempt as well.
    """
    with _tracked(config, "train", key, resumed) as tracker:
        yield tracker


@contextmanager
def later_stage(config: Config, train_key: str) -> Iterator[Tracker]:
    """Add the scores of a trained model to the run of its training, whose status and times stay as they are.

    The first set of samples joins the training's own run. Each further one (same training, other sampler settings)
    gets a child run with a copy of the training's parameters, so that the UI compares one row per setting. Where
    this store knows no such training, a new run with all parameters is opened, and a printed sentence says so.

    Args:
        config: parameters of sampling and scoring, recorded in the run.
        train_key: identity of the training, as given to `training_run`.
    """
    with _tracked(config, "score", train_key, resumed=False) as tracker:
        yield tracker


def sync() -> int:
    """Send what earlier stages could not; returns the number of runs that were completed.

    What a running stage is still writing is left for later. The paths in a store that was moved are put right.

    Raises:
        InputError: something that was kept is damaged, or MLflow will never take it; the rest was sent.
        RunError: the store still cannot take it; everything unsent is kept.
    """
    sent, refused = set(), []
    folders, what = unsent.pending(), "be opened"
    try:
        if folders or location()[1].exists():
            prepare()
        for folder in folders:
            what = f"take {folder} yet"
            try:
                sent.add(deliver(folder, Patience()))
            except StoreError:
                raise
            except InputError as error:
                refused.append(str(error))
    except InputError:
        raise
    except Exception as error:
        raise RunError(f"MLflow cannot {what} ({reason(error)}); it is kept, try again later") from None
    if refused:
        raise InputError("\n".join(refused))
    return len(sent - {None})


@contextmanager
def _tracked(config: Config, stage: str, key: str, resumed: bool) -> Iterator[Tracker]:
    if not config.tracking.enabled:
        yield Tracker(None)
        return
    recorder = Recorder(_work(config, stage, key, resumed))
    tracker = Tracker(recorder.record)
    status = "KILLED"
    try:
        recorder.connect()
        yield tracker
        status = "FINISHED"
    except Exception:
        status = "FAILED"
        raise
    finally:
        tracker.end(status)
        recorder.close()


def _points(metrics: dict[str, float], step: int) -> dict[str, Any]:
    return {"metrics": {name: float(value) for name, value in metrics.items()}, "step": step, "time": _now()}


def _work(config: Config, stage: str, key: str, resumed: bool) -> Work:
    name = f"{config.schedule} · {config.epochs} epoch{'s' * (config.epochs != 1)}"
    return Work(
        stage=stage,
        key=key,
        resumed=resumed,
        names=(name, f"{name} · {config.sample.sampler} {config.sample.steps}"),
        training=params_of(config, TRAINING),
        scoring=params_of(config, SCORING),
        tags=_source(stage) | origin(),
        started=_now(),
        attempt=new_attempt(),
        experiment=config.tracking.experiment,
    )


def _source(stage: str) -> dict[str, str]:
    """MLflow's own tags, for the column Source of its pages."""
    name = {"train": "stages/train.py", "score": "stages/report.py"}[stage]
    return {"mlflow.source.name": name, "mlflow.source.type": "LOCAL"}


def _now() -> int:
    """Milliseconds since 1970: the clock at the start, and what has passed since, also when the clock is set back."""
    return int((CLOCK + time.monotonic()) * 1000)
