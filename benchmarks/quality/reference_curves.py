"""Keep the curves of this workspace's training as a recipe's reference, by which `train` and the report judge others.

    python -m benchmarks.quality.reference_curves cpu-10h --data "7,370 of the 8,189 photographs of Flowers-102"

Reads params.yaml and the training's run in MLflow, which may still go on; replaces the rows of this recipe in
reports/benchmarks/reference_curves.csv, and in the JSON beside it what was trained, where and at which commit.
"""

import argparse
import json
import math
from typing import TYPE_CHECKING, Any

import pandas as pd

from benchmarks import write
from ddpm.config import Config, load_config
from ddpm.data.dataset import load_packed
from ddpm.reporting.reference_curves import FILE, quick_fid, recipe_of
from ddpm.runtime.errors import InputError, guarded
from ddpm.runtime.lineage import stage_key
from ddpm.runtime.paths import PROCESSED
from ddpm.runtime.stage_files import write_whole
from ddpm.tracking.finished import curves, find_training

if TYPE_CHECKING:
    from mlflow.entities import Run


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.quality.reference_curves", description=__doc__.splitlines()[0]
    )
    parser.add_argument("recipe", metavar="RECIPE", help="name under which the curves are kept")
    parser.add_argument(
        "--data", required=True, metavar="WORDS", help="what the images were, for the report's sentence"
    )
    options = parser.parse_args()
    guarded(lambda: keep(options.recipe, options.data, load_config()))


def keep(recipe: str, data: str, config: Config) -> None:
    """Write both files.

    Raises:
        InputError: MLflow knows no training with these parameters and this code, or no held-out loss of it.
        RunError: the store cannot be read.
    """
    run = find_training(config.tracking.experiment, stage_key("train", config.model_dump(mode="json")))
    loss = curves(run.info.run_id, ["heldout/loss"])["heldout/loss"]
    if loss.empty:
        raise InputError(f"{run.info.run_name}: has no held-out loss yet; wait for it")
    # At other steps than the loss, and none at all with fid.every: 0.
    quick = curves(run.info.run_id, ["quick/fid"])["quick/fid"]
    table = pd.DataFrame({"heldout_loss": loss.round(5), quick_fid(config.fid.extractor): quick.round(2)})
    table.insert(0, "images", table.index * config.train.batch_size)
    table.insert(0, "recipe", recipe)
    others = pd.read_csv(FILE) if FILE.exists() else table[:0]
    whole = pd.concat([others[others["recipe"] != recipe], table]).sort_values(["recipe", "images"])
    write_whole(FILE, whole.to_csv(index=False))
    about = FILE.with_suffix(".json")
    entries = json.loads(about.read_text(encoding="utf-8")) if about.exists() else {}
    entry = {"data": data, "images": planned(config), **provenance(run), "recipe": recipe_of(described(config))}
    write(about, entries | {recipe: entry})
    print(f"{FILE}: {len(table)} points of {recipe}, up to {table['images'].max():,} images")


def planned(config: Config) -> int:
    """Images that the whole training sees."""
    images, batch = len(load_packed(PROCESSED).split(config.data.holdout)[0]), config.train.batch_size
    return math.ceil(config.epochs * images / batch) * batch


def provenance(run: "Run") -> dict[str, Any]:
    """Where a run was trained, on what, and by which code."""
    tags = run.data.tags
    return {
        "device": tags.get("device"),
        "commit": tags.get("git.commit"),
        "torch": tags.get("version.torch"),
        "seed": int(run.data.params["seed"]),
        "data_sha256": tags.get("data.sha256"),
    }


def described(config: Config) -> dict[str, Any]:
    """The part of a model's description that decides its curve."""
    return {
        **config.model_dump(mode="json", include={"schedule", "diffusion", "model"}),
        "image_size": config.data.image_size,
        "training": config.model_dump(mode="json", include={"epochs", "train"}),
    }


if __name__ == "__main__":
    main()
