"""The verdict of `python -m ddpm doctor --gpu`: computed from data sheets, not measured."""

from typing import Any

from ddpm.commands.calibration import Calibration, calibration
from ddpm.commands.checks import count_images
from ddpm.commands.estimate import planned_steps, random_images
from ddpm.commands.foresee import (
    BANDWIDTH,
    CONTEXT,
    EAGER,
    LAUNCH,
    Need,
    dtype_of,
    fitting,
    room,
    sampling_need,
    training_need,
)
from ddpm.commands.gpus import Gpu
from ddpm.commands.use import FULL, names, recipe, yaml_word
from ddpm.config import Config, flatten
from ddpm.data.dataset import PackedImages
from ddpm.runtime.errors import InputError, RunError
from ddpm.runtime.progress import duration
from ddpm.training.setup import planned_parameters

CLASSES = 102  # of the images, which are not looked at
MEMORY = {"train.accumulate", "train.checkpoint_activations", "sample.batch_size"}  # what decides it, and no quality


def print_forecast(config: Config, gpu: Gpu) -> None:
    """Print whether the parameters fit into a GPU, with which changes, and how long a training would take.

    Raises:
        RunError: they do not fit, whatever is changed.
    """
    try:
        images = count_images(config)
    except InputError:  # the folder is not there yet
        images = 0
    packed = random_images(config, 2 * CLASSES, CLASSES)
    side, batch = config.data.image_size, config.train.batch_size
    millions = planned_parameters(config, packed) / 1e6
    print(
        f"{gpu.name} (data sheet: {gpu.memory / 2**30:g} GiB, {gpu.bf16 / 1e12:g} TFLOP/s in bf16, "
        f"{gpu.bandwidth / 1e9:g} GB/s); {millions:.1f} M parameters, {side}×{side}, batch {batch}; "
        "computed, not measured\n"
    )
    known = calibration()
    found = fitting(config, packed, images, gpu, known)
    if found is None:
        raise RunError(f"not even one image at a time fits into {gpu.name}; lower model.channels, or set model.patch")
    changed, need = found
    changes = _changes(config, changed)
    _memory(config, packed, images, room(gpu, known), need, changes)
    _time(changed, images, need.seconds(gpu, dtype_of(changed, changed.train.precision), known), need)
    changes |= _sampling(changed, packed, gpu, known)
    _line("use", _advice(config, changes))
    print(f"\n{_basis(known)}")


def _basis(known: Calibration) -> str:
    """State what turned counted work into time."""
    eager = "" if known.eager == 1 else f"{known.eager:.2g} times "
    assumed = (
        f"{CONTEXT / 1e9:g} GB and {known.fragments:.0%} of the memory for CUDA's context and fragments. One time is "
        f"that of {known.compiled:.0%} of the peak, compiled; the other {eager}that of {EAGER:.0%} of "
        f"the peak or {BANDWIDTH:.0%} of the bandwidth in each operation, and {LAUNCH * 1e6:g} µs between two, not "
        "compiled. "
        "Held-out loss, previews and compilation come on top."
    )
    return f"As measured on {known.gpu}: {assumed}" if known.gpu else f"Assumed: {assumed}"


def _changes(config: Config, changed: Config) -> dict[str, Any]:
    before, after = (flatten(one.model_dump(mode="json")) for one in (config, changed))
    return {key: after[key] for key in sorted(MEMORY) if after[key] != before[key]}


def _memory(
    config: Config, packed: PackedImages, images: int, room: float, need: Need, changes: dict[str, Any]
) -> None:
    words = f"{need.memory / 1e9:.1f} of {room / 1e9:.1f} GB, not compiled; compiled, it needs less"
    if changes:
        whole = training_need(config, packed, images).memory
        _line("memory", f"as it is, the training does not fit: {whole / 1e9:.1f} of {room / 1e9:.1f} GB")
        words = f"with {', '.join(f'{key} {yaml_word(value)}' for key, value in changes.items())}: {words}"
    _line("memory", f"fits: {words}")


def _time(config: Config, images: int, seconds: tuple[float, float], need: Need) -> None:
    fast, slow = seconds
    _line(
        "step", f"{fast * 1e3:.0f} to {slow * 1e3:.0f} ms, {need.flops / 1e12:.1f} TFLOP, {need.kernels:,} operations"
    )
    if steps := planned_steps(config, images):
        hours = f"{duration(fast * steps)} to {duration(slow * steps)}"
        _line("training", f"{hours} for {config.epochs:,} epochs, {steps:,} steps; computed, not measured")


def _sampling(config: Config, packed: PackedImages, gpu: Gpu, known: Calibration) -> dict[str, Any]:
    """Print what sampling needs; returns what has to be changed for it."""
    sample = config.sample
    if sample.batch_size == "auto":
        return {}
    size = min(sample.batch_size, sample.n)
    need = sampling_need(config, packed, size)
    if need.memory > room(gpu, known):
        _line("sampling", f"{size} images at a time need {need.memory / 1e9:.1f} GB, too much")
        return {"sample.batch_size": "auto"}
    calls = sample.steps * sample.n / size
    fast, slow = (seconds * calls for seconds in need.seconds(gpu, dtype_of(config, sample.precision), known))
    _line("sampling", f"{duration(fast)} to {duration(slow)} for {sample.n:,} images, {need.memory / 1e9:.1f} GB")
    return {}


def _advice(config: Config, changes: dict[str, Any]) -> str:
    """Name a recipe of recipes/ that makes these changes and no other that matters, or else the changes."""
    if not changes:
        return "params.yaml as it is"
    params = flatten(config.model_dump(mode="json"))
    if FULL in names() and all(params[key] == value for key, value in flatten(recipe(FULL)).items()):
        for name in names():
            values = flatten(recipe(name))
            if set(values) <= MEMORY and all(values.get(key) == value for key, value in changes.items()):
                return f"python -m ddpm use {name}"
    return "dvc exp run " + " ".join(f"-S {key}={yaml_word(value)}" for key, value in changes.items())


def _line(what: str, sentence: str) -> None:
    print(f"  {what:10} {sentence}", flush=True)
