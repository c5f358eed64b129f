"""Which parameters give the best flowers for so many GPU-minutes: a search around params.yaml, on its photographs.

    python -m benchmarks.quality.recipe search --minutes 5 10 20 --trials 24
    python -m benchmarks.quality.recipe seeds --seeds 0 1 2   # the best of the longest budget, once more with each seed
    python -m benchmarks.quality.recipe table                   # reports/benchmarks/recipe.md
    python -m benchmarks.quality.recipe plot                    # reports/benchmarks/recipe.png

The search reads params.yaml, its starting point, and data/processed/, data/reference/ and data/weights/fetched/ of this
workspace. Each trial is the pipeline's own training, sampling and scoring with one changed params.yaml, and a line of
reports/benchmarks/recipe.jsonl. Killed, and started again by the same command, it goes on where it was: in the middle
of a trial from the training's last checkpoint. DVC and MLflow need not be installed.
"""

import argparse
import json
import math
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, machine
from benchmarks.changes import Changes, changed, listed
from benchmarks.quality.recipe_pages import Row, draw, pages, score
from benchmarks.quality.trial import check_data, digest, trial
from ddpm.config import load_config
from ddpm.runtime.checksums import checksum
from ddpm.runtime.devices import choose_device
from ddpm.runtime.errors import InputError, guarded
from ddpm.runtime.paths import PROCESSED
from ddpm.runtime.stage_files import write_whole
from ddpm.runtime.yaml_files import read_yaml

KEPT = 1 / 3  # of the trials of one budget go on to the next
COMBINED = 1 / 3  # of the trials of the first budget are combinations
LINES = "recipe.jsonl"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quality.recipe", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["search", "seeds", "table", "plot"])
    parser.add_argument(
        "--minutes", type=float, nargs="+", default=[5.0, 10.0, 20.0], help="of training (default 5 10 20)"
    )
    parser.add_argument("--trials", type=int, default=24, help="search: of the first budget (default 24)")
    parser.add_argument("--samples", type=int, default=2000, help="images per score (default 2000)")
    parser.add_argument("--seed", type=int, default=0, help="search: which trials are drawn (default 0)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="seeds: these (default 0 1 2)")
    options = parser.parse_args()
    guarded(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """Do what was asked for; the pages follow whatever was measured."""
    if options.what in ("search", "seeds"):
        check_data(load_config())
        base = base_params(options.samples)
        bench = Bench(base, RESULTS / LINES)
        if options.what == "search":
            rows = search(base, sorted(options.minutes), options.trials, options.seed, bench)
            print(f"The best after {max(options.minutes):g} minutes: {listed(rows[0]['changes'])}")
        else:
            again(bench, options.seeds)
    rows = read_lines(RESULTS / LINES)
    if options.what != "plot":
        RESULTS.mkdir(parents=True, exist_ok=True)
        (RESULTS / "recipe.md").write_text(page := pages(rows, load_config().model_dump(mode="json")), encoding="utf-8")
        print(page)
    if options.what != "table":
        draw(rows, RESULTS / "recipe.png")


def search(
    base: dict[str, Any], minutes: list[float], trials: int, seed: int, measure: Callable[[Changes, float], Row]
) -> list[Row]:
    """Try the base, single changes and combinations of those that helped; the best third goes on to the next budget.

    Successive halving (Jamieson & Talwalkar 2016), with thirds. The same `seed` and scores give the same trials.

    Returns:
        The rows of the last budget, best first.
    """
    if trials < 1:
        raise InputError(f"--trials: found {trials}, expected 1 or more")
    rng = random.Random(seed)
    singles = [changes for row in space(base) for changes in row if is_other(base, changes)]
    combined = round(COMBINED * trials) if trials > 3 else 0
    chosen = sorted(rng.sample(range(len(singles)), min(len(singles), trials - 1 - combined)))
    rows = [measure(changes, minutes[0]) for changes in ({}, *(singles[number] for number in chosen))]
    helped = [row["changes"] for row in rows[1:] if score(row) < score(rows[0])]
    rows += [measure(changes, minutes[0]) for changes in combinations(base, helped or singles, combined, rng)]
    for budget in minutes[1:]:
        rows = [measure(row["changes"], budget) for row in best(rows, KEPT)]
    return best(rows, 1)


def space(base: dict[str, Any]) -> list[list[Changes]]:
    """Other choices than those of the base, a row for each thing that is chosen; sizes and rates go by the base's."""
    model, train = base["model"], base["train"]
    widths = [round(model["channels"] * factor / 8) * 8 for factor in (0.5, 0.75, 1.25)]
    batches = [max(1, round(train["batch_size"] * factor)) for factor in (0.25, 0.5, 2)]
    rates = [round(train["lr"] * factor, 9) for factor in (0.5, 2, 4)]
    decays = [round(1 - (1 - train["ema_decay"]) * factor, 9) for factor in (10, 5)]
    return [
        [{"model.channels": width} for width in widths],
        [{"model.channel_mults": mults} for mults in ([1, 2, 3, 4], [1, 1, 2, 2])],  # how the width grows with depth
        [{"model.blocks": model["blocks"] - 1}, {"model.blocks": model["blocks"] + 1}],  # depth at each resolution
        [{"model.attention": []}, {"model.attention": [8]}, {"model.attention": [32, 16, 8]}],  # where it attends
        [{"model.dropout": 0.0}, {"model.dropout": 0.2}],  # against memorising 8,189 images; costs short trainings
        [{"schedule": "cosine"}, {"schedule": "sigmoid"}, {"schedule": "linear"}],  # noise schedule
        [{"diffusion.target": "v"}, {"diffusion.target": "eps"}],  # what is predicted, and so how the loss is weighted
        [{"train.lr": rate} for rate in rates],  # peak learning rate
        [{"train.warmup_steps": train["warmup_steps"] // 5}],  # a long one is much of five minutes
        [{"train.batch_size": batch} for batch in batches],  # smaller: more steps a minute
        [{"train.ema_decay": decay} for decay in decays],  # a shorter average forgets the start sooner
        [{"train.flip": False}],  # mirrored images are no other flowers, or are they?
        [{"train.min_snr": 5.0}, {"train.min_snr": 0.0}],  # loss weight: Min-SNR-γ, Hang et al. 2023; 0 is off
        [{"train.augment": 0.12}, {"train.augment": 0.0}],  # chance of each augmentation, an input of the network
        [{"sample.sampler": "dpmpp_2m_sde", "sample.steps": steps} for steps in (20, 50)],
        [{"sample.sampler": "ddpm", "sample.steps": 250}],  # ancestral: many steps
    ]


def combinations(base: dict[str, Any], singles: list[Changes], count: int, rng: random.Random) -> list[Changes]:
    """Draw so many different ones of two single changes or more, at most one of each row of the space; or fewer."""
    rows = [kept for row in space(base) if (kept := [changes for changes in row if changes in singles])]
    found: list[Changes] = []
    for _ in range(100 * count):
        if len(found) == count or len(rows) < 2:
            break
        some = rng.sample(rows, rng.randint(2, len(rows)))
        changes = {name: value for row in some for name, value in rng.choice(row).items()}
        if changes not in found and is_other(base, changes):
            found.append(changes)
    return found


def best(rows: list[Row], part: float) -> list[Row]:
    """The best part of the trials by FID, best first; at least one."""
    ranked = sorted(rows, key=score)
    if math.isinf(score(ranked[0])):
        raise InputError(f"recipe: no trial ended with a score; the first one failed with: {ranked[0]['failed']}")
    return [row for row in ranked[: math.ceil(part * len(ranked))] if "failed" not in row]


def again(measure: "Bench", seeds: list[int]) -> None:
    """Repeat the best trial of this search's longest budget with other seeds."""
    rows = [row for row in measure.rows if row["search"] == measure.search and row["seed"] == measure.base["seed"]]
    if not rows:
        raise InputError(f"{RESULTS / LINES}: no trial of these parameters and samples on this device; `search` first")
    longest = max(row["minutes"] for row in rows)
    winner = best([row for row in rows if row["minutes"] == longest], 1)[0]
    for seed in seeds:
        measure(winner["changes"], longest, seed)


class Bench:
    """Measures trials, and remembers in a file those that were measured on this device with the same images."""

    def __init__(self, base: dict[str, Any], lines: Path) -> None:
        self.base, self.lines, self.rows = base, lines, read_lines(lines)
        self.machine = machine(choose_device(base["device"]))
        self._device = str(self.machine["device"])
        self._images = checksum(PROCESSED / "images.npy")
        self.search = digest([base | {"epochs": None}, self._device, self._images])[:8]

    def __call__(self, changes: Changes, minutes: float, seed: int | None = None) -> Row:
        """Measure one trial, or return what it gave before."""
        params = changed(self.base, changes if seed is None else changes | {"seed": seed})
        # Which of two equal trials was asked for first does not matter, nor with how many epochs.
        key = digest([params | {"epochs": None, "tracking": None}, minutes, self._device, self._images])
        found = next((row for row in self.rows if row["key"] == key and row["search"] == self.search), None)
        if found is None:
            print(f"{minutes:g} min, seed {params['seed']}: {listed(changes)}")
            about = {"key": key, "search": self.search, "minutes": minutes, "seed": params["seed"], "changes": changes}
            result = trial(params, minutes, self._device + self._images)
            found = about | result | {"params": params | {"epochs": result.get("epochs")}, "machine": self.machine}
            self.rows.append(found)
            write_whole(self.lines, "".join(json.dumps(row) + "\n" for row in self.rows))
        return found


def read_lines(path: Path) -> list[Row]:
    """The trials that a file of lines holds; none where there is no file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []


def base_params(samples: int) -> dict[str, Any]:
    """The parameters of this workspace, with the number of images for a score."""
    params = read_yaml(Path("params.yaml"))
    return changed(params, {"sample.n": samples, "tracking.enabled": False})


def is_other(base: dict[str, Any], changes: Changes) -> bool:
    """Whether these changes can be made, and change something."""
    try:
        return changed(base, changes) != changed(base, {})
    except InputError:
        return False


if __name__ == "__main__":
    main()
