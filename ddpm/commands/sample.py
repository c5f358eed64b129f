"""`python -m ddpm sample`: generate flowers with a trained model, into files to look at."""

import argparse
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from ddpm.parameter_types import Device, Sampler, Spacing
from ddpm.runtime.errors import MAKE_ROOM, InputError, is_disk_full, memory_for
from ddpm.runtime.paths import MODELS, SHIPPED

if TYPE_CHECKING:  # PyTorch takes seconds to import, NumPy a tenth of one, and --help shall take none
    import numpy as np

    from ddpm.model.trained import DiffusionModel

HELP = "generate images with a trained model: a grid, the raw pixels, or a GIF of their way from noise"
EXAMPLE = """example:
  python -m ddpm sample --class sunflower --guidance 1.5 --out sunflowers.png --gif sunflowers.gif"""
IMAGES = 16
GIF_IMAGES = 16
GIF_FRAMES = 41


def add_parser(commands: Any) -> None:
    """Add the command to those of `python -m ddpm`."""
    parser = commands.add_parser(
        "sample", help=HELP, description=HELP, epilog=EXAMPLE, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.set_defaults(action=sample)
    model = parser.add_argument_group("the model")
    model.add_argument(
        "--model",
        type=Path,
        metavar="DIR",
        help=f"folder that training wrote (default: {MODELS}, or {SHIPPED} where nothing was trained)",
    )
    model.add_argument(
        "--device", choices=get_args(Device), default="auto", help="(default: auto, a GPU if there is one)"
    )

    images = parser.add_argument_group("the images")
    images.add_argument("--n", type=int, metavar="N", help=f"how many (default: {IMAGES})")
    images.add_argument("--seed", type=int, default=0, metavar="N", help="another seed, other images (default: 0)")
    wanted = images.add_mutually_exclusive_group()
    wanted.add_argument(
        "--class", dest="label", metavar="NAME", help="only this flower, by its name or number; for conditional models"
    )
    wanted.add_argument("--each-class", action="store_true", help="one flower of each class; for conditional models")
    images.add_argument(
        "--guidance",
        type=float,
        default=1.0,
        metavar="G",
        help="more than 1 exaggerates the class at twice the cost, 0 ignores it; for conditional models (default: 1)",
    )

    way = parser.add_argument_group("the way there")
    way.add_argument("--sampler", choices=get_args(Sampler), default="dpmpp_2m_sde", help="(default: dpmpp_2m_sde)")
    way.add_argument("--steps", type=int, default=20, metavar="N", help="network calls per image (default: 20)")
    way.add_argument(
        "--spacing", choices=get_args(Spacing), default="trailing", help="of the steps (default: trailing)"
    )
    way.add_argument(
        "--batch-size",
        type=_auto_or_number,
        default="auto",
        metavar="N",
        help="images at a time (default: auto, on a GPU as many as fit)",
    )

    files = parser.add_argument_group("the files")
    files.add_argument(
        "--out",
        type=Path,
        default=Path("flowers.png"),
        metavar="FILE",
        help=".png: a grid; .npy: the pixels, (N, H, W, 3) uint8 (default: flowers.png)",
    )
    files.add_argument(
        "--gif", type=Path, metavar="FILE", help=f"also animate the first {GIF_IMAGES} images from noise to flower"
    )


def sample(arguments: argparse.Namespace) -> None:
    """Generate the images and write them.

    Raises:
        InputError: the model, an option or a file to be written cannot be used.
    """
    # Before any work, which may take minutes.
    _check_file("--out", arguments.out, (".png", ".npy"))
    if arguments.gif:
        _check_file("--gif", arguments.gif, (".gif",))
    if arguments.each_class and arguments.n is not None:
        raise InputError("--n: leave it out with --each-class, which generates one flower of each class")

    from ddpm.data.pictures import enlarge, grid, save_gif, save_png
    from ddpm.model.trained import load_model
    from ddpm.runtime.arrays import save_array

    model = load_model(arguments.model or _default_model(), arguments.device)
    known = [name for name in model.config["class_names"] if name not in model.unseen_classes]
    label = known if arguments.each_class else arguments.label
    count = len(label) if arguments.each_class else IMAGES if arguments.n is None else arguments.n
    options = {name: getattr(arguments, name) for name in ("steps", "seed", "sampler", "spacing", "guidance")}
    if model.diffusion.variance == "learned":
        options["variance"] = "learned"  # of use to the sampler ddpm alone
    started = time.perf_counter()
    images = generate(model, count, label=label, batch_size=arguments.batch_size, **options)
    seconds = time.perf_counter() - started
    with _writing(arguments.out):
        if arguments.out.suffix == ".npy":
            save_array(arguments.out, images)
        else:
            save_png(grid(enlarge(images), columns=math.ceil(count**0.5)), arguments.out)
    if arguments.gif:
        shown = min(count, GIF_IMAGES)
        label = label[:shown] if arguments.each_class else label
        with memory_for(f"--gif: the way of {shown} images", f"set --n {max(1, shown // 2)}, or --device cpu"):
            frames = model.frames(range(shown), GIF_FRAMES, label=label, **options)
        with _writing(arguments.gif):
            save_gif([grid(enlarge(frame), columns=math.ceil(shown**0.5)) for frame in frames], arguments.gif)
    files = " and ".join(str(path) for path in (arguments.out, arguments.gif) if path)
    print(f"Generated {count} image{'s' * (count != 1)} in {seconds:.1f} s ({count / seconds:.1f} images/s): {files}")


def generate(model: "DiffusionModel", n: int, *, steps: int, **options: Any) -> "np.ndarray":
    """Generate n images behind a progress bar that moves with every step: (n, H, W, 3) uint8."""
    from ddpm.runtime.progress import progress_bar

    # The delay lets a wrong option speak first.
    with progress_bar(n * steps, "sample", unit="step", delay=0.5) as bar:
        size = options["batch_size"]
        few = size == "auto" or size == 1
        with memory_for(
            "even a single image" if few else f"--batch-size: a batch of {size} images",
            MAKE_ROOM if few else f"set --batch-size {size // 2}, or leave it out to find what fits",
        ):
            return model.sample(n, steps=steps, on_step=bar.update, **options)


def _default_model() -> Path:
    """The model of this workspace; the one that is shipped where there is none."""
    if MODELS.exists() or not SHIPPED.exists():
        return MODELS
    print(f"Nothing was trained here, so this is the model in {SHIPPED}/.", file=sys.stderr)
    return SHIPPED


def _auto_or_number(text: str) -> int | Literal["auto"]:
    try:
        return "auto" if text == "auto" else int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"found {text!r}, choose auto or a number") from None


def _check_file(option: str, path: Path, suffixes: tuple[str, ...]) -> None:
    """Refuse a file that could not be written, and make the folder of one that can be."""
    if path.suffix not in suffixes:
        raise InputError(f"{option}: found {str(path)!r}, choose a name that ends in {' or '.join(suffixes)}")
    if path.is_dir():
        raise InputError(f"{option}: {path} is a folder; name a file in it")
    with _writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)


@contextmanager
def _writing(path: Path) -> Iterator[None]:
    """Report in one line that the file cannot be written."""
    try:
        yield
    except OSError as error:
        if is_disk_full(error):
            raise
        raise InputError(f"{path}: cannot be written ({error})") from None
