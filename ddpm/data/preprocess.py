"""From image files to the packed array: upright, RGB, cropped to the central square, scaled down."""

import multiprocessing
import os
import signal
import sys
import threading
import warnings
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, contextmanager
from itertools import islice
from typing import NamedTuple

import numpy as np
import pandas as pd
from PIL import Image, ImageOps, UnidentifiedImageError

from ddpm.data.dataset import PackedImages, find_copies
from ddpm.data.modes import Meaning, has_unused_alpha, meaning_of, to_rgb
from ddpm.data.sources.source import Item, Source
from ddpm.runtime.errors import InputError, RunError
from ddpm.runtime.progress import progress_bar

ORIENTATION = 0x0112  # EXIF tag; values 5 to 8 swap width and height
GAP = 3  # large images are first reduced by averaging whole blocks, to no less than this multiple of the result
CHUNK = 16  # images that travel to a worker together
AHEAD = 3  # chunks per worker in memory at a time: one at work, and enough that no worker ever waits
MIN_IMAGES = 4  # with fewer, the scores have no standard error

# Of odd metadata, and of large photographs; from twice that size on, Pillow refuses them as decompression bombs.
warnings.filterwarnings("ignore", module=r"PIL\.")


class Prepared(NamedTuple):
    """One image, ready to be packed; the fields before `pixels` are a row of `PackedImages.items`."""

    id: str
    label: int
    width: int
    height: int
    pixels: np.ndarray


class BadImageError(InputError):
    """A file that is no image; made of the source's name, the id and the reason."""

    def __str__(self) -> str:
        source, id, reason = self.args
        return (
            f"data.source {source}: {id} cannot be read as an image ({reason}); repair or remove it, "
            "or set data.on_bad_image to skip"
        )


def pack(source: Source, image_size: int, workers: int | None = None, skip_bad: bool = False) -> PackedImages:
    """Preprocess all images of a source; the result is the same for any number of worker processes.

    Args:
        source: where the images come from.
        image_size: side of the square results, pixels.
        workers: number of processes; None for one per usable core.
        skip_bad: leave out what cannot be read as an image, and list it as `skipped` in the summary.

    Raises:
        InputError: the source has fewer than 4 images that can be read, or, without skip_bad, one that cannot.
        RunError: the system ended a worker process.
    """
    count = len(source)
    if count < MIN_IMAGES:
        raise InputError(
            f"data.source {source.name}: {count} image{'s are' if count != 1 else ' is'} too few, the scores need at "
            f"least {MIN_IMAGES}; add some, or choose another data.source"
        )
    images = np.empty((count, image_size, image_size, 3), dtype=np.uint8)
    rows: list[tuple[str, int, int, int]] = []
    skipped = []
    prepared = _prepare_all(source, image_size, workers or _usable_cores(), skip_bad)
    with closing(prepared), progress_bar(count, "preprocess") as bar:
        for image in prepared:
            bar.update()
            if isinstance(image, BadImageError):
                skipped.append({"id": image.args[1], "reason": image.args[2]})
                continue
            images[len(rows)] = image.pixels
            rows.append(image[:4])
    if len(rows) < MIN_IMAGES:
        first = f"{skipped[0]['id']}: {skipped[0]['reason']}"
        raise InputError(
            f"data.source {source.name}: only {len(rows)} of {count} images can be read, the scores need {MIN_IMAGES}; "
            f"repair the others, the first is {first}"
        )
    items = pd.DataFrame(rows, columns=list(Prepared._fields[:4]))
    names, copies = source.class_names(), find_copies(images[: len(rows)], [row[0] for row in rows])
    summary = {
        "source": source.name,
        "image_size": image_size,
        "count": len(rows),
        "class_names": names,
        "class_counts": np.bincount(items["label"], minlength=len(names)).tolist(),
        "skipped": source.left_out() + skipped,
    }
    if copies:
        summary["copies"] = copies
        print(_said_of_copies(copies, dict(row[:2] for row in rows)))
    return PackedImages(images[: len(rows)], items, summary)


def _said_of_copies(copies: list[list[str]], labels: dict[str, int]) -> str:
    """Count the copies, and name the first ones."""
    more = sum(map(len, copies)) - len(copies)
    mixed = [group for group in copies if len({labels[name] for name in group}) > 1]
    first, second, *_ = (mixed or copies)[0]
    same = "has the same pixels as another" if more == 1 else "have the same pixels as others"
    classes = f" ({len(mixed):,} of them in two classes or more)" if mixed else ""
    return (
        f"{more:,} image{'s' * (more > 1)} {same}{classes}, such as {second} and {first}; copies stay on one side of "
        "the held-out split"
    )


def prepare(source: Source, image_size: int, item: Item) -> Prepared:
    """Open one image and make it square; width and height are those of the upright original, in pixels.

    Raises:
        BadImageError: it cannot be read as an image.
        InputError: see `Source.open`.
    """
    try:
        with source.open(item) as image:
            meaning = meaning_of(image)  # before the orientation, for which Pillow decodes a PNG
            width, height = image.size
            # Of a TIFF, Pillow states the size upright already.
            if image.format != "TIFF" and image.getexif().get(ORIENTATION, 1) >= 5:
                width, height = height, width
            # A JPEG that is much larger than needed is decoded at 1/2, 1/4 or 1/8 of its size, which is far faster.
            image.draft(None, (GAP * image_size, GAP * image_size))
            square = to_square(image, image_size, meaning)
    except (InputError, MemoryError):
        raise
    except UnidentifiedImageError:  # whose message has an address in memory
        raise BadImageError(source.name, item.id, "it is none of the known formats") from None
    except Exception as error:  # PIL's decoders raise a dozen unrelated types on damaged files
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImageError(source.name, item.id, reason) from None
    return Prepared(item.id, item.label, width, height, np.asarray(square))


def to_square(image: Image.Image, image_size: int, meaning: Meaning | None = None) -> Image.Image:
    """Turn upright, crop the central square, convert to RGB in sRGB and scale to `image_size` pixels."""
    meaning = meaning or meaning_of(image)
    upright = ImageOps.exif_transpose(image)
    width, height = upright.size
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    meaning = meaning._replace(unused_alpha=has_unused_alpha(upright, meaning))  # of all of it: the middle may be clear
    square = to_rgb(upright.crop((left, top, left + side, top + side)), meaning)
    return square.resize((image_size, image_size), Image.Resampling.LANCZOS, reducing_gap=GAP)


def _prepare_all(
    source: Source, image_size: int, workers: int, skip_bad: bool
) -> Generator[Prepared | BadImageError, None, None]:
    """Prepare all items in worker processes, and yield them in the order of the source."""
    # fork starts at once and is safe here, where no library's threads are at work; elsewhere only spawn is.
    context = multiprocessing.get_context("fork" if sys.platform == "linux" else "spawn")
    others = multiprocessing.active_children()
    with _starting("they need a /dev/shm that can be written (in a container: --shm-size=64m)"):
        pool = ProcessPoolExecutor(workers, context, initializer=_begin_worker)
    with pool:
        try:
            items, waiting = source.items(), deque[Future[list[Prepared | BadImageError]]]()
            while chunk := list(islice(items, CHUNK)):
                with _starting("raise the limit (`ulimit -u`), or use one core: `taskset -c 0 dvc repro preprocess`"):
                    waiting.append(pool.submit(_prepare_chunk, source, image_size, skip_bad, chunk))
                if len(waiting) == AHEAD * workers:
                    yield from waiting.popleft().result()
            while waiting:
                yield from waiting.popleft().result()
        except BrokenProcessPool:
            # Before Python 3.11.5, the pool waits for ever for its thread that hands out work, if that is just writing
            # into the pipe that nobody reads any more (CPython issue 94777).
            if sys.version_info < (3, 11, 5):
                pool._call_queue._reader.close()  # type: ignore[attr-defined]
            raise RunError(
                "preprocess: the system ended a worker process, most likely because memory ran out; free some, or use "
                "fewer cores (`taskset -c 0 dvc repro preprocess` uses one), and run it again"
            ) from None
        except BaseException:  # an error or a signal: nobody waits any more for what the workers are doing
            for worker in set(multiprocessing.active_children()) - set(others):
                worker.terminate()
            raise


@contextmanager
def _starting(remedy: str) -> Iterator[None]:
    """Turn the system's refusal of more processes, which names no place, into a sentence."""
    try:
        yield
    except OSError as error:
        raise RunError(f"preprocess: no worker processes can be started ({error.strerror}); {remedy}") from None


def _prepare_chunk(
    source: Source, image_size: int, skip_bad: bool, chunk: list[Item]
) -> list[Prepared | BadImageError]:
    results: list[Prepared | BadImageError] = []
    for item in chunk:
        try:
            results.append(prepare(source, image_size, item))
        except BadImageError as error:
            if not skip_bad:
                raise
            results.append(error)
    return results


def _begin_worker() -> None:
    """Let Ctrl-C, or a signal to the whole group, reach only the parent, which then ends its workers in good order."""
    os.setpgrp()
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # the parent's handler, inherited, is not for workers
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End this worker when its parent was killed: it would wait for work for ever."""
    if parent := multiprocessing.parent_process():
        parent.join()
        os._exit(1)


def _usable_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
