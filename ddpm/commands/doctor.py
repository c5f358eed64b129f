"""`python -m ddpm doctor`: is everything there, and what will the current parameters cost on this machine?"""

import argparse
import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ddpm.runtime.errors import InputError, RunError, unless_too_large

if TYPE_CHECKING:  # PyTorch takes seconds to import, the parameters a tenth of one, and --help shall take none
    import torch

    from ddpm.commands.estimate import Cost
    from ddpm.config import Config
    from ddpm.training.loop import Training

HELP = "check this machine, and predict memory, images per second and hours of params.yaml; takes about a minute"
CLASSES = 102  # of the random images; their number costs nothing
LONG = 24 * 3600  # seconds; a training that takes longer has shorter recipes named beside it
SHORTER = {"cpu": ("cpu-1h", "cpu-10h"), "cuda": ("gpu-30min",)}


def add_parser(commands: Any) -> None:
    """Add the command to those of `python -m ddpm`."""
    parser = commands.add_parser("doctor", help=HELP, description=HELP)
    parser.set_defaults(action=doctor)
    parser.add_argument("--gpu", metavar="NAME", help="compute it for a GPU that is not here, such as 'RTX 3080 Ti'")
    parser.add_argument("--gpu-memory", type=float, metavar="GIB", help="of a GPU that --gpu does not know")
    parser.add_argument("--gpu-tflops", type=float, metavar="TFLOPS", help="its dense bf16 peak, with sums in float32")
    parser.add_argument("--gpu-bandwidth", type=float, metavar="GB/S", help="of its memory")


def doctor(arguments: argparse.Namespace) -> None:
    """Print a line per check and per stage; no data are needed, and nothing is written.

    Raises:
        InputError: params.yaml cannot be used, or the GPU that is asked for is not known.
        RunError: there is a problem.
    """
    from ddpm.config import load_config

    config = load_config()
    asked = (arguments.gpu, arguments.gpu_memory, arguments.gpu_tflops, arguments.gpu_bandwidth)
    if any(value is not None for value in asked):
        from ddpm.commands.gpu_forecast import print_forecast
        from ddpm.commands.gpus import find_gpu

        print_forecast(config, find_gpu(*asked))
        return
    from ddpm.commands.checks import count_images, run_checks
    from ddpm.commands.estimate import random_images
    from ddpm.runtime.devices import choose_device, describe
    from ddpm.training.setup import planned_parameters

    device = choose_device(config.device)
    config = config.model_copy(update={"device": device.type})  # `auto` is resolved once
    try:
        images = count_images(config)
    except InputError:  # one of the checks says so
        images = 0
    parameters = planned_parameters(config, random_images(config, 2 * CLASSES, CLASSES))
    side = config.data.image_size
    print(f"{describe(device)}; {parameters / 1e6:.1f} M parameters, {side}×{side}, batch {config.train.batch_size}\n")
    problems = 0
    for check in run_checks(config, parameters, device):
        _line(check.state, check.what, check.sentence)
        problems += check.state == "problem"
    print()
    problems += not _estimate(config, images, parameters)
    if problems:
        raise RunError(f"{problems} problem{'s' * (problems != 1)}, see above")


def builder(config: "Config", device: "torch.device") -> "Callable[[int], Training]":
    """What makes a training of random images with so many per step, as `training_cost` and `largest_batch` want it."""
    from ddpm.commands.estimate import random_images
    from ddpm.training.setup import prepare

    def build(size: int) -> "Training":
        train = config.train.model_copy(update={"batch_size": size})
        changed = config.model_copy(update={"train": train})
        return prepare(changed, random_images(config, max(2 * CLASSES, 2 * size), CLASSES), device)

    return build


def predicted_cost(config: "Config", images: int, device: "torch.device") -> "Cost":
    """Predict what a training step costs, with so many images in the memory.

    Raises:
        RuntimeError: the batch does not fit into the memory, see `errors.is_out_of_memory`.
    """
    from ddpm.commands.estimate import training_cost
    from ddpm.training.batches import streams

    size = 3 * config.data.image_size**2 * images
    held = 0 if streams(size, device) else size  # before anything fills the memory
    cost = training_cost(builder(config, device), config.train.batch_size, device, config.train.accumulate)
    return replace(cost, memory=cost.memory + held, images=held)


def _estimate(config: "Config", images: int, parameters: int) -> bool:
    """Measure and print what the stages will take; returns whether all of them fit into the memory."""
    import torch

    device = torch.device(config.device)
    cost = unless_too_large(lambda: predicted_cost(config, images, device))
    if cost is None:
        _too_large(config, device)
        return False
    return all([_training(config, cost, images, parameters), _sampling(config, device), _scoring(config, images)])


def _too_large(config: "Config", device: "torch.device") -> None:
    """Report which batch would fit, compiled if the training will be: without, it would seem to be smaller."""
    from ddpm.commands.estimate import largest_batch

    build = builder(config, device)
    batch, parts = config.train.batch_size, config.train.accumulate

    def take(size: int) -> None:
        training = build(size)
        for step in range(2):  # the first one makes AdamW's moments when its activations are gone
            training.train_step(step)

    fits = largest_batch(take, batch)
    remedy = "not even 1 image fits; lower model.channels"
    if fits:
        remedy = f"{fits} fits; set it to that, or train.accumulate to {math.ceil(batch / math.ceil(fits / parts))}"
    _line("problem", "memory", f"train.batch_size: {batch} images do not fit into the memory; {remedy}")


def _training(config: "Config", cost: "Cost", images: int, parameters: int) -> bool:
    import torch

    from ddpm.commands.estimate import planned_steps
    from ddpm.commands.use import names
    from ddpm.runtime.devices import memory
    from ddpm.runtime.progress import duration
    from ddpm.training.step import STATE_BYTES

    batch = config.train.batch_size
    rate, state = batch / cost.step_seconds, STATE_BYTES * parameters
    rest = max(0.0, cost.memory - state - cost.images)
    parts = {"weights and optimizer": state, "images": cost.images, "rest": rest}
    words = ", ".join(f"{name} {_gb(part)}" for name, part in parts.items())
    streamed = "; the images stream from the disk" if images and not cost.images else ""
    _line("train", "memory", f"{_gb(cost.memory)}: {words}{streamed}")
    machine = memory(torch.device("cpu"))
    enough = config.device == "cuda" or cost.memory < machine
    if not enough:
        _line("problem", "", f"this machine has {_gb(machine)}; raise train.accumulate, or lower model.channels")
    how = "" if cost.measured_batch == batch else f", predicted from batches of up to {cost.measured_batch}"
    _line("", "speed", f"{rate:.3g} images/s{how}")
    steps = planned_steps(config, images)
    seconds = steps * cost.step_seconds
    _line("", "time", f"{duration(seconds)} for {config.epochs:,} epochs, {steps:,} steps")
    shorter = [f"`python -m ddpm use {name}`" for name in SHORTER[config.device] if name in names()]
    if seconds > LONG and shorter:
        _line("", "recipe", f"shorter: {', '.join(shorter)}")
    return enough


def _sampling(config: "Config", device: "torch.device") -> bool:
    from ddpm.commands.estimate import largest_batch, random_images, sampling_batch, sampling_seconds
    from ddpm.model.trained import DiffusionModel
    from ddpm.runtime.progress import duration
    from ddpm.training.setup import describe_model, prepare

    packed = random_images(config, 2 * CLASSES, CLASSES)
    training = prepare(config, packed, device)
    model = DiffusionModel(training.ema.model, describe_model(config, packed, training))

    def seconds(size: int) -> float:
        return sampling_seconds(model, config.sample, config.seed, size)

    size = sampling_batch(config.sample, device)
    taken = unless_too_large(lambda: seconds(size))
    if taken is None:
        fits = largest_batch(seconds, size)
        if fits is None or config.sample.batch_size != "auto":
            remedy = (
                f"{fits} fits; set it to that, or to auto" if fits else "not even 1 image fits; lower model.channels"
            )
            _line("problem", "sample", f"sample.batch_size: {size} images do not fit into the memory; {remedy}")
            return False
        taken = seconds(fits)
    _line("sample", "time", f"{duration(taken)} for {config.sample.n:,} images in {config.sample.steps} steps")
    return True


def _scoring(config: "Config", images: int) -> bool:
    import torch

    from ddpm.commands.estimate import scoring_seconds
    from ddpm.evaluation.features import load_extractor, weights_file
    from ddpm.runtime.progress import duration

    name = config.fid.extractor
    try:
        extractor = load_extractor(name, weights_file(name), torch.device(config.device))
    except InputError:
        _line("fid", "time", "not known before the feature weights are there")
        return True
    seconds = unless_too_large(lambda: scoring_seconds(extractor, config, images))
    if seconds is None:
        remedy = f"lower fid.batch_size ({config.fid.batch_size}), or sample.n ({config.sample.n:,})"
        _line("problem", "fid", f"the features or the scores do not fit into the memory; {remedy}")
        return False
    _line("fid", "time", f"{duration(seconds)} with {name} features")
    return True


def _gb(amount: float) -> str:
    return f"{amount / 1e9:.2g} GB"


def _line(first: str, second: str, sentence: str) -> None:
    print(f"  {first:8} {second:16} {sentence}", flush=True)
