"""How well the doctor predicts: its forecast of a training, beside the same training.

    python -m benchmarks.speed.doctor                   # all settings: about two minutes each on a CPU
    python -m benchmarks.speed.doctor --only small      # these alone; the others keep what was measured before
    python -m benchmarks.speed.doctor --print           # prints the table of docs/speed.md

It reads params.yaml and writes reports/benchmarks/doctor.json. Forecast and training each run in a process of their
own, one after the other, because what is known of a process's memory is its peak.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks import RESULTS, alone, machine, read, whereabouts, write
from benchmarks.changes import Changes, changed_config
from ddpm.commands.doctor import predicted_cost
from ddpm.commands.estimate import random_images
from ddpm.config import Config, load_config
from ddpm.runtime.checkpoint import Checkpoint
from ddpm.runtime.devices import choose_device
from ddpm.runtime.errors import guarded
from ddpm.runtime.forecast import peak_memory
from ddpm.training.setup import prepare

SMALL: Changes = {"data.image_size": 32, "model.channels": 32, "model.head_channels": 32, "train.batch_size": 16}
ACCUMULATE: Changes = {"train.accumulate": 2}
CHECKPOINT: Changes = {"train.checkpoint_activations": True}
# What is changed in params.yaml; a CPU takes batches of the full network that need seconds, not minutes, a step.
SETTINGS: dict[str, Changes] = {
    "small": SMALL,
    "small, accumulate 2": SMALL | ACCUMULATE,
    "small, checkpoint_activations": SMALL | CHECKPOINT,
    "small, batch 128": SMALL | {"train.batch_size": 128},
    "full network, batch 4": {"train.batch_size": 4},
    "full network, batch 8": {"train.batch_size": 8},
    "full network, accumulate 2": {"train.batch_size": 8} | ACCUMULATE,
    "full network, checkpoint_activations": {"train.batch_size": 4} | CHECKPOINT,
}
GPU_SETTINGS: dict[str, Changes] = {
    "full network": {},
    "full network, accumulate 2": ACCUMULATE,
    "full network, checkpoint_activations": CHECKPOINT,
}
IMAGES = 160  # a tenth of them is held out
WARM_UP = 2  # steps of the training that are not timed
FILE = RESULTS / "doctor.json"


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.doctor", description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=8, metavar="N", help="steps of each training (default 8)")
    parser.add_argument("--only", nargs="+", choices=SETTINGS | GPU_SETTINGS, metavar="SETTING", help="of these alone")
    parser.add_argument("--print", action="store_true", help="print the table of what was measured before")
    options = parser.parse_args()
    guarded(lambda: show() if options.print else measure(options))


def show() -> None:
    """Print the table of what was measured before."""
    print(table(read(FILE, "python -m benchmarks.speed.doctor")))


def measure(options: argparse.Namespace) -> None:
    """Compare forecast and training in each setting."""
    config = load_config()
    device = choose_device(config.device)
    config = config.model_copy(update={"device": device.type})  # `auto` is resolved once
    settings = SETTINGS | GPU_SETTINGS if device.type == "cuda" else SETTINGS
    content: dict[str, Any] = {"machine": machine(device), "steps": options.steps}
    before = json.loads(FILE.read_text()) if FILE.exists() else {}
    same = {name: before.get(name) for name in content} == content
    rows: dict[str, Any] = before["settings"] if same else {}
    for name in options.only or settings:
        setting = changed_config(config, (SETTINGS | GPU_SETTINGS)[name])
        rows[name] = compare(alone(predicted, setting, options.steps), alone(trained, setting, options.steps))
        write(FILE, content | {"settings": {key: rows[key] for key in settings if key in rows}})
    show()


def predicted(config: Config, _steps: int) -> dict[str, Any]:
    """What the doctor says, and how long it takes for it."""
    device = choose_device(config.device)
    started = time.perf_counter()
    cost = predicted_cost(config, IMAGES, device)
    return {
        "seconds": time.perf_counter() - started,
        "measured_batch": cost.measured_batch,
        "images_per_second": config.train.batch_size / cost.step_seconds,
        "memory": cost.memory,
    }


def trained(config: Config, steps: int) -> dict[str, Any]:
    """What the training says: the loop of the `train` stage, with its checkpoint and held-out loss, without MLflow."""
    train = config.train.model_copy(update={"log_every": WARM_UP})
    config = config.model_copy(update={"epochs": 1, "train": train})
    training = prepare(config, random_images(config, IMAGES), choose_device(config.device))
    training.steps = steps
    rates: list[float] = []

    class Reporter:
        def metrics(self, metrics: dict[str, float], step: int) -> None:
            rates.extend(metrics[name] for name in metrics if name == "train/images_per_second" and step > WARM_UP)

    with tempfile.TemporaryDirectory() as folder:
        training.run(Reporter(), Checkpoint(Path(folder)))
    return {"images_per_second": statistics.harmonic_mean(rates), "memory": peak_memory(training.device)}


def compare(forecast: dict[str, Any], training: dict[str, Any]) -> dict[str, Any]:
    """Both, and forecast over training."""
    ratios = {name: forecast[name] / value for name, value in training.items()}
    return {"forecast": forecast, "training": training, "ratios": ratios}


def table(content: dict[str, Any]) -> str:
    """Render what was measured as Markdown."""
    lines = [
        f"{whereabouts(content['machine'])}; {content['steps']} steps of each training:",
        "",
        "| | images/s: forecast | training | ratio | memory: forecast | training | ratio | the forecast took |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for name, row in content["settings"].items():
        cells = [name]
        for key, scale, unit in (("images_per_second", 1, ""), ("memory", 1e9, " GB")):
            cells += [f"{row[who][key] / scale:.3g}{unit}" for who in ("forecast", "training")]
            cells.append(f"{row['ratios'][key]:.2f}")
        lines.append(f"| {' | '.join(cells)} | {row['forecast']['seconds']:.0f} s |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
