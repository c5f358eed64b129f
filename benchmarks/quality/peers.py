"""How good this project's recipe is beside those of others: same photographs, same device, same minutes of training.

    python -m benchmarks.quality.peers run --minutes 20    # train, paint and score each; then the table and the figure
    python -m benchmarks.quality.peers table               # reports/benchmarks/peers.md from peers.json
    python -m benchmarks.quality.peers plot                # reports/benchmarks/peers.png

Each trains for so many minutes on the clock, compilation and loading of images included, and keeps its weights at some
moments on the way. Of each moment, the same number of images is painted by the contender's own sampler, and scored by
the protocol of the `fid` stage against all photographs of data/processed/. `run` reads params.yaml, data/processed/,
data/reference/ and data/weights/fetched/ of this workspace. Killed, and started again by the same command, it goes on:
a training begins anew, the images and scores that are there stay. DVC and MLflow need not be installed.
"""

import argparse
import json
import multiprocessing
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from benchmarks import RESULTS, machine, write
from benchmarks.loops import Workload, installed
from benchmarks.quality.peers_pages import draw, page
from benchmarks.quality.published import RECIPES, Recipe
from benchmarks.quality.trial import check_data, digest
from ddpm.commands.estimate import seconds_of
from ddpm.config import Config, load_config
from ddpm.data.dataset import load_packed
from ddpm.evaluation.protocol import evaluate
from ddpm.evaluation.results import features_of, reference_features
from ddpm.runtime.arrays import save_array
from ddpm.runtime.checksums import checksum
from ddpm.runtime.devices import choose_device
from ddpm.runtime.errors import RunError, guarded
from ddpm.runtime.paths import PROCESSED
from ddpm.runtime.progress import progress_bar
from ddpm.training.setup import split

WORK = Path(".peers")
WARM_UP, TIMED_SECONDS = 2, 3.0  # steps, and how long the speed is measured, to plan the number of steps
CHUNK_SECONDS = 1.0  # between two looks at the clock, for which a GPU has to be waited for


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.peers", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["run", "table", "plot"])
    parser.add_argument("--minutes", type=float, default=20, help="of training for each (default 20)")
    parser.add_argument("--moments", type=int, default=4, help="at which each is scored, evenly spaced (default 4)")
    parser.add_argument("--samples", type=int, default=2000, help="images per score (default 2000)")
    parser.add_argument("--batch-size", type=int, default=100, help="images painted at a time (default 100)")
    parser.add_argument("--only", nargs="+", choices=RECIPES, default=list(RECIPES), help="of these alone")
    options = parser.parse_args()
    guarded(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """Do what was asked for; the page and the figure follow each contender that was measured."""
    file = RESULTS / "peers.json"
    if options.what == "run":
        config, names = load_config(), installed(options.only)
        check_data(config)
        setting = settings(config, options)
        folder = WORK / digest(setting)
        lay_out(config, folder / "pngs")
        for name in names:
            if not (folder / name / "result.json").exists():
                print(f"{name}: {options.minutes:g} minutes of training")
                in_a_process(name, folder, options)
            found = {name: folder / name / "result.json" for name in RECIPES}
            rows = {name: json.loads(path.read_text()) for name, path in found.items() if path.exists()}
            write(file, setting | {"contenders": rows})
    content = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {"contenders": {}}
    if options.what != "plot":
        (RESULTS / "peers.md").write_text(text := page(content), encoding="utf-8")
        print(text)
    if options.what != "table" and content["contenders"]:
        draw(content, RESULTS / "peers.png")


def settings(config: Config, options: argparse.Namespace) -> dict[str, Any]:
    """What decides the figures, but for the machine's mood."""
    return {
        "minutes": options.minutes,
        "moments": options.moments,
        "samples": options.samples,
        "device": str(machine(choose_device(config.device))["device"]),
        "images_sha256": checksum(PROCESSED / "images.npy"),
        "params": config.model_dump(mode="json", exclude={"tracking"}),
    }


def lay_out(config: Config, pngs: Path) -> None:
    """Write the photographs that train ours as files, for those who read files."""
    packed = load_packed(PROCESSED)
    rows, _ = split(config, packed)
    pngs.mkdir(parents=True, exist_ok=True)
    written = len(list(pngs.iterdir()))
    for row in rows[max(0, written - 1) :]:  # the last one may be cut off
        Image.fromarray(packed.images[row]).save(pngs / f"{row:06}.png")


def in_a_process(name: str, folder: Path, options: argparse.Namespace) -> None:
    """Measure one contender in a process of its own, because the libraries change settings of the whole process."""
    process = multiprocessing.get_context("spawn").Process(target=guarded_measure, args=(name, folder, options))
    process.start()
    process.join()
    if process.exitcode:
        others = " ".join(other for other in options.only if other != name)
        raise RunError(f"{name}: this contender failed, see above; leave it out with --only {others}")


def guarded_measure(name: str, folder: Path, options: argparse.Namespace) -> None:
    """Measure one contender; a fault is one sentence."""
    guarded(lambda: measure(name, folder, options))


def measure(name: str, folder: Path, options: argparse.Namespace) -> None:
    """Train a contender, then paint and score each moment that has no score yet; leaves result.json."""
    config = load_config()
    device = choose_device(config.device)
    here = folder / name
    here.mkdir(exist_ok=True)
    work = Workload(config, PROCESSED, folder / "pngs", here / "exported", parameters=0)
    if not (here / "training.json").exists():
        about = train(name, work, device, options.minutes, options.moments, here)
        write(here / "training.json", about | {"machine": machine(device)})
    about = json.loads((here / "training.json").read_text())
    recipe: Recipe = RECIPES[name](work, about["steps"])
    real = torch.from_numpy(reference_features(config.fid)).to(device)
    for number, moment in enumerate(about["moments"]):
        part = here / f"scores-{number}.json"
        if not part.exists():
            weights = torch.load(here / f"{number}.pt", map_location=device, weights_only=True)
            images = paint(recipe, weights, options.samples, options.batch_size, here / f"samples-{number}")
            fake = torch.from_numpy(features_of(images, config.fid, device)).to(device)
            write(part, evaluate(real, fake) | {"reference_images": len(real)})
        moment |= json.loads(part.read_text())
    about |= {"parameters": recipe.parameters, "batch": recipe.batch, "calls": recipe.calls}
    write(here / "result.json", about | {"extractor": config.fid.extractor})


def train(name: str, work: Workload, device: torch.device, minutes: float, moments: int, here: Path) -> dict[str, Any]:
    """Train for so many minutes, and leave the weights of each moment in a file.

    The speed is measured before, by a contender that is thrown away, so that a learning rate that falls does so within
    the minutes.

    Returns:
        steps that were planned; images_per_second over the training; and of each moment minutes and steps.
    """
    first, seconds = speed(RECIPES[name](work, 1000), device)
    planned = max(moments, int((60 * minutes - first) / seconds))
    recipe: Recipe = RECIPES[name](work, planned)
    chunk, done, spent, found = max(1, round(CHUNK_SECONDS / seconds)), 0, 0.0, []
    with progress_bar(planned, name, unit="step") as bar:
        for number in range(moments):
            until, goal = 60 * minutes * (number + 1) / moments, planned * (number + 1) // moments
            # Whichever comes first, but for a step at least; keeping the weights is not on the clock.
            while done < goal and (spent < until or done == 0):
                steps = min(chunk if done else 1, goal - done)
                spent += seconds_of(lambda steps=steps: recipe.run(steps), device)
                done += steps
                bar.update(steps)
                end_with_parent()
            torch.save(recipe.weights(), here / f"{number}.pt")
            found.append({"minutes": spent / 60, "steps": done})
    return {"steps": planned, "images_per_second": done * recipe.batch / spent, "moments": found}


def speed(recipe: Recipe, device: torch.device) -> tuple[float, float]:
    """Seconds of the first step, which may include a compilation, and of a later one."""
    first = seconds_of(lambda: recipe.run(1), device)
    second = seconds_of(lambda: recipe.run(WARM_UP), device) / WARM_UP
    count = max(1, int(TIMED_SECONDS / second))
    return first, seconds_of(lambda: recipe.run(count), device) / count


def paint(recipe: Recipe, weights: dict[str, torch.Tensor], count: int, size: int, folder: Path) -> np.ndarray:
    """Paint so many images in batches, each kept in a file: (N, H, W, 3) uint8."""
    folder.mkdir(exist_ok=True)
    batches = []
    with progress_bar(count, folder.name) as bar:
        for first in range(0, count, size):
            file = folder / f"{first:06}-{size}.npy"
            if not file.exists():
                save_array(file.with_suffix(".tmp"), recipe.paint(weights, first, min(size, count - first)))
                file.with_suffix(".tmp").replace(file)
                end_with_parent()
            batches.append(np.load(file))
            bar.update(len(batches[-1]))
    return np.concatenate(batches)


def end_with_parent() -> None:
    """Leave no contender behind at the device when whoever started it was killed."""
    parent = multiprocessing.parent_process()
    if parent and not parent.is_alive():
        sys.exit(1)


if __name__ == "__main__":
    main()
