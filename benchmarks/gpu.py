"""All that only a GPU can show, in one command: does it work, how fast is it, what comes out, how right are forecasts.

    python -m benchmarks.gpu                          # all parts
    python -m benchmarks.gpu --only tests step        # these alone
    python -m benchmarks.gpu --minutes 5              # a shorter training

It works on what params.yaml says and, where data/processed/, data/reference/ or data/weights/ are missing, makes them
first by the pipeline's own stages. DVC, MLflow and diffusers need not be installed. Each part leaves its result in
reports/benchmarks/gpu.json and gpu.md; killed, and started again by the same command, it goes on with the part that was
in work, as it does after a part that failed. `python -m ddpm doctor --gpu` goes by what was measured from then on.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import traceback
import xml.etree.ElementTree as ET
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from benchmarks import alone, machine, whereabouts, write
from benchmarks.changes import changed_config
from benchmarks.gpu_page import page
from benchmarks.quality.recipe import base_params
from benchmarks.quality.trial import check_data, digest, trial
from benchmarks.speed import train as speed
from benchmarks.speed.flops import peak
from benchmarks.speed.variants import CLASSES, IMAGES, SAMPLING, STEPS, sampling, training_step
from ddpm.commands.calibration import FILE, Calibration
from ddpm.commands.estimate import random_images
from ddpm.commands.foresee import dtype_of, training_need
from ddpm.commands.gpus import known_gpu
from ddpm.config import Config, load_config
from ddpm.runtime.checksums import checksum
from ddpm.runtime.devices import choose_device
from ddpm.runtime.errors import InputError, RunError, guarded
from ddpm.runtime.paths import PROCESSED, REFERENCE, WEIGHTS
from ddpm.runtime.stage_files import write_whole
from ddpm.training.setup import planned_parameters
from stages import download, preprocess, reference

Part = dict[str, Any]
PAGE = FILE.with_suffix(".md")
TESTS = Path(__file__).parents[1] / "tests/training/test_cuda.py"
SMALL_BATCH = 64  # of sampling, beside that of params.yaml


def main() -> None:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts alone")
    parser.add_argument("--minutes", type=float, default=20.0, help="training: so long (default 20)")
    parser.add_argument("--samples", type=int, default=2000, help="training: images for the score (default 2000)")
    parser.add_argument("--steps", type=int, default=20, help="peers: steps per turn (default 20)")
    parser.add_argument("--rounds", type=int, default=5, help="peers: turns of each contender (default 5)")
    options = parser.parse_args()
    guarded(lambda: run(options))


def run(options: argparse.Namespace) -> None:
    """Measure what is not in the file yet, part by part, and print the page."""
    config = load_config()
    device = choose_device(config.device)
    config = config.model_copy(update={"device": device.type})  # `auto` is resolved once
    make_data(config)
    here = machine(device)
    content = read(here)
    for name in options.only:
        asked = {"params": config.model_dump(mode="json"), **settings(name, options)}
        before = content["parts"].get(name, {})
        if before.get("asked") == asked and "failed" not in before:
            print(f"{name}: measured before")
            continue
        print(f"{name}:", flush=True)
        content["parts"][name] = {"asked": asked, **attempt(name, PARTS[name], config, options)}
        content["calibration"] = calibrated(content["parts"].get("step"), here)
        write(FILE, content)
        write_whole(PAGE, page(content))
    print(page(content))


def read(here: dict[str, object]) -> dict[str, Any]:
    """What was measured before, if it was by this commit on this machine."""
    content: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8")) if FILE.exists() else {}
    if content.get("machine") == here:
        return content
    if content:
        print(f"{FILE} was measured on {whereabouts(content['machine'])}; all parts begin anew")
    return {"machine": here, "parts": {}, "calibration": None}


def settings(name: str, options: argparse.Namespace) -> dict[str, Any]:
    """What else than params.yaml decides a part."""
    return {
        key: getattr(options, key)
        for key in {"training": ("minutes", "samples"), "peers": ("steps", "rounds")}.get(name, ())
    }


def attempt(name: str, action: Callable[..., Part], *given: Any) -> Part:
    """Measure something; where that fails it says why, whatever it is, and the others go on."""
    try:
        return action(*given)
    except Exception as error:  # a first GPU brings what nobody has foreseen, from compilers and drivers
        if not isinstance(error, InputError | RunError):
            traceback.print_exc()
        why = (str(error).splitlines() or [type(error).__name__])[0]
        print(f"{name}: {why}", file=sys.stderr)
        return {"failed": why}


def make_data(config: Config) -> None:
    """Run the stages whose outputs are missing, without DVC."""
    outputs = {download: WEIGHTS, preprocess: PROCESSED / "images.npy", reference: REFERENCE / "features.npy"}
    missing = [stage for stage, output in outputs.items() if not output.exists()]
    for stage in missing:
        stage.main(config)
    check_data(config)


def tests(_config: Config, _options: argparse.Namespace) -> Part:
    """Run the tests that need a GPU; returns how many passed, failed and were skipped, and which failed."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report.xml"
        # Not the project's options, for pytest's plugins need not be there.
        command = ["-m", "pytest", "-q", "-o", "addopts=", f"--junit-xml={report}", str(TESTS)]
        subprocess.run([sys.executable, *command], check=False)
        if not report.exists():
            raise RunError("pytest gave no report; is it installed? See above")
        cases = list(ET.parse(report).iter("testcase"))
    found: dict[str, list[str]] = {"passed": [], "failed_tests": [], "skipped": []}
    for case in cases:
        kinds = {child.tag for child in case}
        kind = "failed_tests" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        found[kind].append(case.get("name", ""))
    return {"passed": len(found["passed"]), "skipped": len(found["skipped"]), "failed_tests": found["failed_tests"]}


def step(config: Config, _options: argparse.Namespace) -> Part:
    """Time the training step in each form, beside what is computed of it for this GPU."""
    forms = {}
    for form in STEPS:
        forms[form] = attempt(form, alone, training_step, config, form)
        print(f"  {form}: {summary(forms[form])}", flush=True)
    device = torch.device(config.device)
    packed = random_images(config, 2 * CLASSES, CLASSES)
    need = training_need(config, packed, max(IMAGES, config.train.batch_size))
    gpu = known_gpu(torch.cuda.get_device_name(device)) if device.type == "cuda" else None
    computed = {"flops": need.flops, "memory": need.memory, "parameters": planned_parameters(config, packed)}
    if gpu:
        fast, slow = need.seconds(gpu, dtype_of(config, config.train.precision), Calibration())
        computed |= {"compiled_seconds": fast, "eager_seconds": slow}
    return {"forms": forms, "batch": config.train.batch_size, "peak_flops": peak(device), "computed": computed}


def summary(form: Part) -> str:
    """A form in words."""
    return form.get("failed") or f"{form['step_seconds']['median'] * 1e3:.1f} ms, {form['memory'] / 1e9:.1f} GB"


def peers(config: Config, options: argparse.Namespace) -> Part:
    """Let our loop and diffusers' take turns on our network, without classes, which theirs does not know.

    Raises:
        InputError: the network works on patches, which theirs does not know either.
    """
    config = changed_config(config, {"model.conditional": False})
    content = speed.compare(config, ["ours", "diffusers", "diffusers_fast"], options.steps, options.rounds)
    return {"contenders": content["contenders"], "batch": content["batch"]}


def sample(config: Config, _options: argparse.Namespace) -> Part:
    """Time the sampling of params.yaml in each form, with few and with as many images at a time as it says."""
    whole = config.sample.batch_size
    sizes = sorted({SMALL_BATCH} | ({whole} if isinstance(whole, int) else set()))
    rows = []
    for size in sizes:
        for form in SAMPLING:
            rows.append({"form": form, "size": size, **attempt(form, alone, sampling, config, form, size)})
            rate = rows[-1].get("failed") or f"{rows[-1]['images_per_second']:.2f} images/s"
            print(f"  {form}, {size} at a time: {rate}", flush=True)
    return {"rows": rows, "sampler": config.sample.sampler, "steps": config.sample.steps}


def train(config: Config, options: argparse.Namespace) -> Part:
    """Train for so many minutes, sample and score, as the pipeline does."""
    place = digest([machine(torch.device(config.device))["device"], checksum(PROCESSED / "images.npy")])
    return trial(base_params(options.samples) | {"device": config.device}, options.minutes, place)


PARTS = {"tests": tests, "step": step, "peers": peers, "sampling": sample, "training": train}


def calibrated(part: Part | None, here: dict[str, Any]) -> dict[str, Any] | None:
    """What the step says of the assumptions of `python -m ddpm doctor --gpu`; None where the GPU is not known."""
    if not part or "failed" in part or "eager_seconds" not in part["computed"]:
        return None
    computed, forms = part["computed"], part["forms"]
    if any("failed" in forms[form] for form in ("compiled", "not compiled")):
        return None
    compiled, eager = (forms[form]["step_seconds"]["median"] for form in ("compiled", "not compiled"))
    reserved, assumed = forms["not compiled"]["reserved"], Calibration()
    return asdict(
        Calibration(
            compiled=assumed.compiled * computed["compiled_seconds"] / compiled,
            eager=eager / computed["eager_seconds"],
            fragments=max(0.0, 1 - computed["memory"] / reserved),
            gpu=whereabouts(here).replace("`", ""),
        )
    )


if __name__ == "__main__":
    main()
