"""How fast the samplers are, and how good with how many steps, beside diffusers on the same weights.

    python -m benchmarks.speed.sampling speed     # ours, diffusers' pipelines and the bare network take turns
    python -m benchmarks.speed.sampling scores    # FID and KID by sampler and steps; goes on where it was interrupted

Both read models/ (and `scores` also data/reference/ and data/weights/fetched/) of this workspace, and write
reports/benchmarks/sampling_*.json and .png.
"""

import argparse
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from benchmarks import RESULTS, machine, spread, write
from ddpm.commands.estimate import seconds_of
from ddpm.config import load_config
from ddpm.evaluation.features import extract, load_extractor, weights_file
from ddpm.evaluation.intervals import standard_error
from ddpm.evaluation.results import reference_features
from ddpm.evaluation.scores import fid, kid_blocks
from ddpm.model.model_file import WEIGHTS_FILE
from ddpm.model.trained import DiffusionModel, load_model
from ddpm.reporting.figures import default_style, save
from ddpm.runtime.checksums import checksum
from ddpm.runtime.errors import InputError, guarded
from ddpm.runtime.interpreter import lacking
from ddpm.runtime.paths import MODELS
from ddpm.runtime.progress import progress_bar

# Sampler, its options, and the numbers of steps with which it is scored.
FAST = (10, 20, 50)
SCORED: list[tuple[str, dict[str, str], tuple[int, ...]]] = [
    ("dpmpp_2m", {"spacing": "logsnr"}, FAST),
    ("dpmpp_2m_sde", {"spacing": "logsnr"}, FAST),
    ("dpmpp_2m", {"spacing": "trailing"}, (20,)),
    ("dpmpp_2m_sde", {"spacing": "trailing"}, FAST),
    ("dpmpp_2m_sde", {"spacing": "uniform"}, (20,)),
    ("ddim", {"spacing": "trailing"}, FAST),
    ("ddpm", {"spacing": "trailing", "variance": "small"}, (50, 250)),
]
# Ours and what does the same in diffusers.
PAIRS: dict[str, tuple[str, dict[str, str]]] = {
    "ddpm": ("DDPMScheduler", {}),
    "ddim": ("DDIMScheduler", {}),
    "dpmpp_2m": ("DPMSolverMultistepScheduler", {}),
    "dpmpp_2m_sde": ("DPMSolverMultistepScheduler", {"algorithm_type": "sde-dpmsolver++"}),
}

Run = Callable[[], object]


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.speed.sampling", description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=["speed", "scores"])
    parser.add_argument("--n", type=int, default=512, help="scores: images per setting (default 512)")
    parser.add_argument("--batch-size", type=int, default=64, help="images at a time (default 64)")
    parser.add_argument("--steps", type=int, default=20, help="speed: steps per image (default 20)")
    parser.add_argument("--rounds", type=int, default=7, help="speed: turns of each contender (default 7)")
    options = parser.parse_args()
    guarded(lambda: (measure_speed if options.what == "speed" else measure_scores)(options))


def measure_speed(options: argparse.Namespace) -> None:
    """Time one batch by each contender in turn, several rounds; each is compared with the bare network just before."""
    model = load_model(MODELS)
    if model.diffusion.variance == "learned" or model.unet.class_embedding is not None:
        raise InputError(f"{MODELS}: diffusers has no pipeline for learned variances or classes; time a model without")
    seconds: dict[str, list[tuple[float, float]]] = {}
    network_alone, runs = contenders(model, options.batch_size, options.steps)
    for run in (network_alone, *runs.values()):
        run()  # warm up
    for _ in range(options.rounds):
        for name, run in runs.items():
            seconds.setdefault(name, []).append(
                (seconds_of(network_alone, model.device), seconds_of(run, model.device))
            )
    rows = {
        name: {
            "images_per_second": spread([options.batch_size / ours for _, ours in pairs]),
            "time_over_network_alone": spread([ours / bare for bare, ours in pairs]),
        }
        for name, pairs in seconds.items()
    }
    about = {"machine": machine(model.device), "model": summary(model), "batch": options.batch_size}
    write(
        RESULTS / "sampling_speed.json", about | {"steps": options.steps, "rounds": options.rounds, "contenders": rows}
    )
    for name, row in rows.items():
        low, middle, high = row["time_over_network_alone"].values()
        rate = row["images_per_second"]["median"]
        print(f"{name:40} {rate:8.2f} images/s, {low:.3f} - {middle:.3f} - {high:.3f} times the network alone")


def contenders(model: DiffusionModel, batch: int, steps: int) -> tuple[Run, dict[str, Run]]:
    """The network alone; our samplers, and diffusers' pipelines with the same weights."""
    x = torch.randn(batch, 3, model.image_size, model.image_size, device=model.device)
    t = torch.full((batch,), model.diffusion.timesteps // 2, device=model.device)

    @torch.inference_mode()
    def network_alone() -> None:
        for _ in range(steps):
            model.unet(x, t)

    runs: dict[str, Run] = {}
    for name, theirs in pipelines(model).items():
        # fp32, as the other two: the loops are compared, not the precisions.
        runs[f"ours: {name}"] = lambda name=name: model.sample(
            batch, steps=steps, sampler=name, batch_size=batch, precision="fp32"
        )
        if theirs:
            runs[f"diffusers: {name}"] = lambda pipe=theirs: pipe(
                batch_size=batch, num_inference_steps=steps, output_type="np"
            )
    return network_alone, runs


def pipelines(model: DiffusionModel) -> dict[str, Callable[..., object] | None]:
    """For each of our samplers, what does the same in diffusers; None where that is not installed."""
    if lacking("diffusers"):
        print("diffusers is left out: it is not installed")
        return dict.fromkeys(PAIRS)
    import diffusers

    from ddpm.model.diffusers_format import save_diffusers

    with tempfile.TemporaryDirectory() as folder:
        save_diffusers(Path(folder), model.unet.state_dict(), model.config)
        pipeline = diffusers.DDPMPipeline.from_pretrained(folder).to(model.device)
    found = {}
    for name, (theirs, extra) in PAIRS.items():
        found[name] = diffusers.DDPMPipeline(
            pipeline.unet, getattr(diffusers, theirs).from_config(pipeline.scheduler.config, **extra)
        )
        found[name].set_progress_bar_config(disable=True)
    return found


def measure_scores(options: argparse.Namespace) -> None:
    """Score the same number of samples, from the same noise, of every sampler and number of steps."""
    config, model = load_config(), load_model(MODELS)
    real = torch.from_numpy(reference_features(config.fid))
    extractor = load_extractor(config.fid.extractor, weights_file(config.fid.extractor), model.device)
    about = {
        "machine": machine(model.device),
        "model": summary(model) | {"sha256": checksum(MODELS / WEIGHTS_FILE)},
        "extractor": config.fid.extractor,
        "samples": options.n,
        "reference_images": len(real),
    }
    file = RESULTS / "sampling_scores.json"
    before = json.loads(file.read_text()) if file.exists() else {}
    same = all(before.get(name) == value for name, value in about.items() if name != "machine")
    rows: list[dict[str, Any]] = before["rows"] if same else []
    settings = [(sampler, extra, steps) for sampler, extra, counts in SCORED for steps in counts]
    for sampler, extra, steps in settings:
        setting = {"sampler": sampler, **extra, "steps": steps}
        if any(setting.items() <= row.items() for row in rows):
            continue
        images = []
        with progress_bar(options.n, f"{sampler} {steps}") as bar:
            for first in range(0, options.n, options.batch_size):
                size = min(options.batch_size, options.n - first)
                images.append(model.sample(size, first=first, sampler=sampler, steps=steps, batch_size=size, **extra))
                bar.update(size)
        fake = torch.from_numpy(extract(np.concatenate(images), extractor, config.fid.batch_size))
        blocks = kid_blocks(real, fake)
        mean, error = float(blocks.mean()), standard_error(blocks)
        rows.append({**setting, "fid": fid(real, fake), "kid": mean, "kid_error": error})
        write(file, about | {"rows": rows})
        print(f"{setting}: FID {rows[-1]['fid']:.2f}, KID {mean:.5f} ± {error:.5f}")
    draw_scores(rows, config.fid.extractor, RESULTS / "sampling_scores.png")


@default_style()
def draw_scores(rows: list[dict[str, Any]], extractor: str, path: Path) -> None:
    """Draw FID by the number of steps, a line per sampler."""
    figure = Figure((6.4, 4), dpi=120, layout="constrained")
    axes = figure.subplots()
    for sampler, extra, _ in SCORED:
        line = [row for row in rows if {"sampler": sampler, **extra}.items() <= row.items()]
        line.sort(key=lambda row: row["steps"])
        label = ", ".join([sampler, *extra.values()])
        axes.plot([row["steps"] for row in line], [row["fid"] for row in line], marker="o", label=label)
    axes.set(xlabel="steps (network calls per image)", ylabel=f"FID ({extractor} features)", xscale="log")
    axes.set_xticks(ticks := sorted({row["steps"] for row in rows}), [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    save(figure, path)


def summary(model: DiffusionModel) -> dict[str, object]:
    """What the model is."""
    training = model.config["training"]
    return {
        "parameters": training["parameters"],
        "image_size": model.image_size,
        "schedule": model.config["schedule"],
        "target": model.config["diffusion"]["target"],
        "epochs": training["epochs"],
        "source": training["source"],
    }


if __name__ == "__main__":
    main()
