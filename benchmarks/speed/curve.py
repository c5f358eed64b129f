"""Images per second of this project's training, by batch size, width and resolution."""

import argparse
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from benchmarks import RESULTS, machine, spread, write
from benchmarks.speed.contenders import flops
from benchmarks.speed.flops import peak
from ddpm.commands.estimate import random_images, step_timer
from ddpm.config import Config, load_config, parse_config
from ddpm.reporting.figures import default_style, save
from ddpm.runtime.devices import choose_device
from ddpm.runtime.errors import InputError, unless_too_large
from ddpm.training.setup import prepare

FACTORS = {"batch": (0.25, 0.5, 1, 2), "width": (0.5, 1, 2), "resolution": (0.5, 1, 2)}


def measure_curve(options: argparse.Namespace) -> None:
    """Change one of the three at a time, from the parameters of params.yaml."""
    config = load_config()
    device = choose_device(config.device)
    rows: list[dict[str, Any]] = []
    for axis, factors in FACTORS.items():
        for factor in factors:
            try:
                changed = scaled(config, axis, factor, options.batch_size)
            except InputError as error:
                print(f"{axis} × {factor:g} is left out: {error}")
                continue
            row = {
                "axis": axis,
                "batch": changed.train.batch_size,
                "width": changed.model.channels,
                "resolution": changed.data.image_size,
                "flops": flops(changed),
                "images_per_second": rates(changed, options.steps, options.rounds),
            }
            rows.append(row)
            rate = row["images_per_second"]
            print(f"{axis:10} {row[axis]:5}: " + (f"{rate['median']:.2f} images/s" if rate else "out of memory"))
    content = {
        "machine": machine(device),
        "model": config.model.model_dump(mode="json"),
        "precision": config.train.precision,
        "steps": options.steps,
        "rounds": options.rounds,
        "peak_flops": peak(device),
        "rows": rows,
    }
    write(RESULTS / "train_curve.json", content)
    draw_curve(content, RESULTS / "train_curve.png")


def scaled(config: Config, axis: str, factor: float, batch_size: int | None) -> Config:
    """Multiply batch, width or resolution; attention stays at the same depth of the network.

    Raises:
        InputError: such a network cannot be built.
    """
    params = config.model_dump(mode="json")
    train, model, data = params["train"], params["model"], params["data"]
    train["batch_size"] = batch_size or train["batch_size"]
    match axis:
        case "batch":
            train["batch_size"] = max(1, int(train["batch_size"] * factor))
        case "width":
            model["channels"] = int(model["channels"] * factor)
        case "resolution":
            data["image_size"] = int(data["image_size"] * factor)
            model["attention"] = [int(side * factor) for side in model["attention"]]
    data["holdout"] = 0.0
    return parse_config(params, f"params.yaml with {axis} × {factor:g}")


def rates(config: Config, steps: int, rounds: int) -> dict[str, float] | None:
    """Images per second over several rounds of random images; None where the memory does not suffice."""
    return unless_too_large(lambda: _rates(config, steps, rounds))


def _rates(config: Config, steps: int, rounds: int) -> dict[str, float]:
    batch = config.train.batch_size
    seconds = step_timer(prepare(config, random_images(config, 2 * batch), choose_device(config.device)))
    seconds(2)
    return spread([batch / seconds(steps) for _ in range(rounds)])


@default_style()
def draw_curve(content: dict[str, Any], path: Path) -> None:
    """Draw three panels, one per axis."""
    figure = Figure((9, 3.2), dpi=120, layout="constrained")
    for axes, axis in zip(figure.subplots(1, len(FACTORS)), FACTORS, strict=True):
        rows = [row for row in content["rows"] if row["axis"] == axis and row["images_per_second"]]
        x = [row[axis] for row in rows]
        low, middle, high = ([row["images_per_second"][key] for row in rows] for key in ("min", "median", "max"))
        axes.fill_between(x, low, high, alpha=0.3)
        axes.plot(x, middle, marker="o")
        axes.set(xlabel=axis, ylabel="images per second", xscale="log", yscale="log")
        axes.set_xticks(x, [str(tick) for tick in x])
        axes.set_yticks(middle, [f"{rate:.0f}" for rate in middle])
        axes.minorticks_off()
        axes.grid(alpha=0.3)
    figure.suptitle(content["machine"]["device"])
    save(figure, path)
