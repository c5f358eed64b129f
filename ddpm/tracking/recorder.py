"""From a stage into the store, or, when the store fails, into a folder and from there into the store later."""

import queue
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

from ddpm.runtime.errors import InputError, is_disk_full
from ddpm.tracking import unsent
from ddpm.tracking.database import StoreError, masked, prepare
from ddpm.tracking.store import Claim, Entry, Store, Work

PATIENCE = 10.0  # seconds that one stage waits for a slow store, in all
RETRY = 300.0  # seconds after a failure until the store is tried again
# What MLflow answers where trying again will not help: a deleted experiment or run, a name that it does not allow.
REFUSALS = ("INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST")

T = TypeVar("T")


class Patience:
    """Waits for calls to the store: a second for each is free, what is beyond it comes out of PATIENCE."""

    def __init__(self) -> None:
        self._left = PATIENCE

    def call(self, action: Callable[[], T]) -> T:
        """Return what the action returns, or raise what it raises.

        Raises:
            TimeoutError: the patience is at its end; the action is left to itself.
        """
        answers: queue.SimpleQueue[tuple[T | None, BaseException | None]] = queue.SimpleQueue()

        def answer() -> None:
            try:
                answers.put((action(), None))
            except BaseException as error:
                answers.put((None, error))

        started = time.monotonic()
        # A daemon: a database that is locked, or a server that is silent, shall not hold up the end of the process.
        threading.Thread(target=answer, daemon=True).start()
        try:
            value, error = answers.get(timeout=1 + max(0.0, self._left))
        except queue.Empty:
            raise TimeoutError("no answer in time") from None
        finally:
            self._left -= max(0.0, time.monotonic() - started - 1)
        if error is not None:
            raise error
        return value  # type: ignore[return-value]


class Recorder:
    """Sends the entries of one piece of work to its run; while the store fails, it keeps them instead."""

    def __init__(self, work: Work) -> None:
        """Nothing is sent or opened before `connect`."""
        self._work = work
        self._patience = Patience()
        self._delivery: Delivery | None = None
        self._claim: Claim | None = None
        self._unsent: unsent.Unsent | None = None
        self._warned: set[str] = set()
        self._retry = 0.0

    def record(self, entry: Entry) -> None:
        """Send an entry, or keep it."""
        if self._delivery is None and time.monotonic() >= self._retry:
            self.close()
            self.connect()
        if self._delivery:
            try:
                self._delivery.send(entry)
                return
            except Exception as error:
                self._failed(error)
                if not is_disk_full(error):  # else it was the artifacts' disk, and the database may take the rest
                    self._delivery = None
        try:
            self._unsent = self._unsent or unsent.Unsent(self._work, self._claim)
            self._unsent.add(entry)
        except OSError as error:
            self._warn("lost", f"what MLflow misses cannot be kept either ({reason(error)})")

    def close(self) -> None:
        """Leave what is unsent to others."""
        if self._unsent:
            self._unsent.close()
            self._unsent = None

    def connect(self) -> None:
        """Find or open the run, after sending what earlier stages could not."""
        self._retry = time.monotonic() + RETRY
        try:
            prepare()
            self._send_older()
            delivery = Delivery(self._work, self._claim, self._patience)
            if self._work.resumed:
                delivery.skip_repeated_points()
            self._claim, self._delivery = delivery.claim, delivery
        except Exception as error:
            self._failed(error)

    def _send_older(self) -> None:
        for folder in unsent.pending():
            try:
                deliver(folder, self._patience)
            except StoreError:
                raise
            except InputError as error:  # it must not be in the way of this stage for ever
                self._warn(str(folder), str(error))
            except OSError as error:
                if not is_disk_full(error):
                    raise
                self._failed(error)

    def _failed(self, error: Exception) -> None:
        fault = str(error) if isinstance(error, InputError) else f"MLflow failed ({reason(error)})"
        self._warn(
            "failed",
            f"{fault}; what it misses is kept in .unsent/, and sent when it answers again, by the next stage, or by "
            "`python -m ddpm sync`",
        )

    def _warn(self, kind: str, sentence: str) -> None:
        """Print a message once."""
        if kind not in self._warned:
            self._warned.add(kind)
            print(f"warning: {sentence}; models/ and reports/ are not affected", file=sys.stderr)


class Delivery:
    """An open store, and the run in it that takes the entries of a piece of work."""

    def __init__(self, work: Work, claim: Claim | None, patience: Patience) -> None:
        """Find or open the run; `claim` is the one that was known when the store failed."""
        self._work, self._patience = work, patience
        self.store = patience.call(lambda: Store(work.experiment))
        # Another store than the one that failed, at the right address this time, does not know the run.
        known = claim if claim and patience.call(lambda: self.store.holds(claim)) else None
        self.claim = known or patience.call(lambda: self.store.claim(work))
        self.store.adopt(self.claim)
        self._points: set[tuple[str, int]] = set()
        self._pictures: set[tuple[str, int]] = set()

    def skip_repeated_points(self) -> None:
        """Leave out what the run has: going on from a checkpoint repeats the steps since it was written."""
        self._points = self._patience.call(lambda: self.store.points(self.claim))
        self._pictures = self._patience.call(lambda: self.store.pictures(self.claim))

    def send(self, entry: Entry) -> None:
        """Add an entry to the run."""
        match entry:
            case {"metrics": metrics, "step": step}:
                new = {name: value for name, value in metrics.items() if (name, step) not in self._points}
                entry = {**entry, "metrics": new}
            case {"image": _, "key": key, "step": step} if (key, step) in self._pictures:
                return
            case {"end": _} if not self._patience.call(lambda: self.store.is_newest(self.claim, self._work)):
                return  # it was sent late: how the run ends is for the attempt to say that went on with it
            case {"artifacts": _}:  # files may be large; a server that is silent ends this by its own limit
                self.store.send(self.claim, entry)
                return
        self._patience.call(lambda: self.store.send(self.claim, entry))


def deliver(folder: Path, patience: Patience) -> str | None:
    """Send what a folder of unsent entries holds and delete it.

    Returns:
        Id of the run; None if the process of this folder is still writing to it.

    Raises:
        InputError: the folder is damaged, or the store will never take it.
        Exception: the store cannot take it now.
    """
    from mlflow import MlflowException

    with unsent.opened(folder) as content:
        if content is None:
            return None
        work, claim, entries = content
        try:
            delivery = Delivery(work, claim, patience)
            if work.stage == "train":  # it may have been interrupted after it was sent in part
                delivery.skip_repeated_points()
            for entry in entries:
                delivery.send(entry)
            patience.call(lambda: delivery.store.end_if_gone(delivery.claim))
        except MlflowException as error:
            if error.error_code not in REFUSALS:
                raise
            raise InputError(
                f"{folder}: MLflow refuses it ({reason(error)}); delete this folder, or mend that"
            ) from None
    return delivery.claim.run_id


def reason(error: Exception) -> str:
    """What went wrong, in less than a line."""
    return f"{type(error).__name__}: {' '.join(masked(str(error)).split())[:200]}"
