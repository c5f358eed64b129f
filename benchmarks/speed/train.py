"""How fast training is, beside diffusers and denoising-diffusion-pytorch on the same images and network.

    python -m benchmarks.speed.train speed    # ours and the peers' loops take turns
    python -m benchmarks.speed.train curve    # ours by batch size, width and resolution
    python -m benchmarks.speed.train table    # prints the README's table of what `speed` measured

They read params.yaml, and `speed` also data/processed/, of this workspace; they write reports/benchmarks/train_*.json
and .png.
"""

import argparse
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from PIL import Image

from benchmarks import RESULTS, machine, read, spread, whereabouts, write
from benchmarks.changes import changed_config
from benchmarks.loops import Workload, installed
from benchmarks.speed.contenders import CONTENDERS, LABELS
from benchmarks.speed.curve import measure_curve
from benchmarks.speed.flops import peak
from benchmarks.speed.shares import measure_shares
from benchmarks.speed.turns import orders, players
from ddpm.config import Config, load_config
from ddpm.data.dataset import PackedImages, load_packed
from ddpm.model.diffusers_format import save_diffusers
from ddpm.reporting.figures import default_style, save
from ddpm.runtime.devices import choose_device
from ddpm.runtime.errors import InputError, guarded
from ddpm.runtime.paths import PROCESSED
from ddpm.training.setup import describe_model, prepare

FILE = "train_speed.json"  # in RESULTS


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.train", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "curve", "table"])
    parser.add_argument("--batch-size", type=int, metavar="N", help="images per step (default: train.batch_size)")
    parser.add_argument("--steps", type=int, default=20, metavar="N", help="steps per turn (default 20)")
    parser.add_argument("--rounds", type=int, default=7, metavar="N", help="turns of each contender (default 7)")
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=list(CONTENDERS), help="speed: of these alone")
    options = parser.parse_args()
    actions: dict[str, Callable[..., object]] = {"speed": measure_speed, "curve": measure_curve, "table": print_table}
    guarded(lambda: actions[options.what](options))


def measure_speed(options: argparse.Namespace) -> None:
    """Let the contenders take turns, and write what they did."""
    config = load_config()
    if options.batch_size:
        config = changed_config(config, {"train.batch_size": options.batch_size})
    content = compare(config, options.only, options.steps, options.rounds)
    write(RESULTS / FILE, content)
    draw_speed(content, (RESULTS / FILE).with_suffix(".png"))
    print(table(content))


def compare(config: Config, only: list[str], steps: int, rounds: int) -> dict[str, Any]:
    """Let these contenders take so many turns of so many steps; ratios are taken within a round."""
    device, batch = choose_device(config.device), config.train.batch_size
    config = config.model_copy(update={"device": device.type})  # `auto` is resolved once
    names = installed(only)
    with workload(config, load_packed(PROCESSED)) as work, players(names, work) as contenders:
        warm_up = {player.name: player.turn(2) for player in contenders}
        rates: dict[str, list[float]] = {player.name: [] for player in contenders}
        memory: dict[str, int | None] = {}
        peaks = [peak(device)]
        for order in orders(contenders, rounds):
            for player in order:
                turn = player.turn(steps)
                rates[player.name].append(steps * batch / turn["seconds"])
                memory[player.name] = turn["peak_memory"]
            peaks.append(peak(device))
    highest = max(known) if (known := [value for value in peaks if value]) else None
    rows = {
        player.name: {
            **player.facts,
            "images_per_second": spread(rates[player.name]),
            # For a GPU of the bf16 peak, whatever the contender calculates in.
            "fraction_of_peak": spread([rate * player.facts["flops"] / highest for rate in rates[player.name]])
            if highest
            else None,
            "peak_memory": memory[player.name],
            "warm_up_seconds": warm_up[player.name]["seconds"],
            "ours_over_this": spread([a / b for a, b in zip(rates["ours"], rates[player.name], strict=True)])
            if "ours" in rates
            else None,
        }
        for player in contenders
    }
    return {
        "machine": machine(device),
        "image_size": config.data.image_size,
        "model": config.model.model_dump(mode="json"),
        "batch": batch,
        "precision": config.train.precision,
        "steps": steps,
        "rounds": rounds,
        "peak_flops": highest,
        "contenders": rows,
        "shares": measure_shares(config) if "ours" in rates else None,
    }


@contextmanager
def workload(config: Config, packed: PackedImages) -> Iterator[Workload]:
    """Lay the images and the network out as each contender reads them, in a temporary folder.

    Raises:
        InputError: the peers cannot train this network, or there are fewer images than a batch.
    """
    if config.model.conditional or config.diffusion.variance == "learned":
        raise InputError("the peers train without classes and variance: set model.conditional: false, variance: fixed")
    batch = config.train.batch_size
    config = config.model_copy(update={"data": config.data.model_copy(update={"holdout": 0.0})})
    # Whole batches only: a smaller one at the end of an epoch is other work, for which torch.compile begins anew.
    kept = len(packed.images) // batch * batch
    if kept == 0:
        raise InputError(f"--batch-size: {batch} is more than the {len(packed.images)} images of {PROCESSED}")
    packed = PackedImages(packed.images[:kept], packed.items[:kept], packed.summary | {"count": kept})
    with tempfile.TemporaryDirectory() as folder:
        work = Workload(config, *(Path(folder) / name for name in ("packed", "pngs", "exported")), parameters=0)
        packed.save(work.packed)
        work.pngs.mkdir()
        for number, image in enumerate(packed.images):
            Image.fromarray(image).save(work.pngs / f"{number:06}.png")
        training = prepare(config, packed, torch.device("cpu"))
        weights = {name: tensor.contiguous() for name, tensor in training.unet.state_dict().items()}
        description = describe_model(config, packed, training)
        save_diffusers(work.exported, weights, description)
        yield Workload(config, work.packed, work.pngs, work.exported, description["training"]["parameters"])


def print_table(_options: argparse.Namespace) -> None:
    """Print the README's table."""
    print(table(read(RESULTS / FILE, "python -m benchmarks.speed.train speed")))


def table(content: dict[str, Any]) -> str:
    """Render what `speed` measured as Markdown."""
    size = content["image_size"]
    millions = content["contenders"][next(iter(content["contenders"]))]["parameters"] / 1e6
    lines = [
        f"{whereabouts(content['machine'])}; "
        f"{millions:.1f} M parameters, {size}×{size}, batch {content['batch']}; "
        f"least – **median** – greatest of {content['rounds']} rounds:",
        "",
        "| | images/s | ours is faster by | of the device's peak | GPU memory |",
        "|---|---|---|---|---|",
    ]
    for name, row in content["contenders"].items():
        memory = f"{row['peak_memory'] / 1e9:.1f} GB" if row["peak_memory"] else "–"
        share = f"{row['fraction_of_peak']['median']:.0%}" if row["fraction_of_peak"] else "not known"
        ratio = _spread(row["ours_over_this"], "×") if row["ours_over_this"] and name != "ours" else "–"
        lines.append(f"| {LABELS[name]} | {_spread(row['images_per_second'])} | {ratio} | {share} | {memory} |")
    return "\n".join(lines)


def _spread(values: dict[str, float], unit: str = "") -> str:
    digits = 2 if values["median"] < 10 else 1 if values["median"] < 100 else 0
    low, middle, high = (f"{values[name]:.{digits}f}" for name in ("min", "median", "max"))
    return f"{low} – **{middle}{unit}** – {high}"


@default_style()
def draw_speed(content: dict[str, Any], path: Path) -> None:
    """Draw a bar per contender, with its least and greatest rate."""
    rows = content["contenders"]
    figure = Figure((6.4, 0.9 + 0.5 * len(rows)), dpi=120, layout="constrained")
    axes = figure.subplots()
    for place, (name, row) in enumerate(rows.items()):
        low, middle, high = (row["images_per_second"][key] for key in ("min", "median", "max"))
        axes.barh(place, middle, xerr=[[middle - low], [high - middle]], color="C0" if name == "ours" else "C7")
    axes.set_yticks(range(len(rows)), [LABELS[name].replace("`", "") for name in rows])
    axes.invert_yaxis()
    axes.set(xlabel=f"images per second, batch {content['batch']}")
    figure.suptitle(content["machine"]["device"])
    save(figure, path)


if __name__ == "__main__":
    main()
