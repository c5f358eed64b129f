"""`python -m ddpm export`: a trained model as a folder that other programs read, or that is small enough to pass on."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ddpm.runtime.errors import InputError
from ddpm.runtime.paths import MODELS, REPORTS


def add_parser(commands: Any) -> None:
    """Describe the command line."""
    help_text = "write a trained model in the format of another library, or in half the size, and publish it"
    parser = commands.add_parser("export", help=help_text, description=help_text)
    parser.add_argument(
        "folder", type=Path, nargs="?", metavar="DIR", help="where to; new, empty, or of an earlier export"
    )
    parser.add_argument("--model", type=Path, default=MODELS, metavar="DIR", help="a model folder (default: models)")
    parser.add_argument(
        "--format",
        choices=["diffusers", "half", "both"],
        default="diffusers",
        help="diffusers: a folder for DDPMPipeline.from_pretrained (default); half: a folder for `sample --model` and "
        "load_model, with the weights as float16; both: the two side by side; each with a model card",
    )
    parser.add_argument(
        "--data",
        metavar="TEXT",
        help="what the training images are, in a few words for the model card; without it, a folder is called private",
    )
    parser.add_argument(
        "--push",
        metavar="OWNER/NAME",
        help="upload the export to this repository of the Hugging Face Hub; created, and private, if there is none",
    )
    parser.set_defaults(action=export)


def export(arguments: argparse.Namespace) -> None:
    """Read a model folder, and for a model card reports/scores/; write the exported model, upload it if wanted.

    Raises:
        InputError: there is no such model, it cannot be expressed in that format, DIR holds something else, or the
            hub does not accept the model.
        RunError: the hub cannot be reached.
    """
    if not arguments.folder and not arguments.push:
        raise InputError("export: neither DIR nor --push OWNER/NAME says where to; name one of them")
    formats = ("diffusers", "half") if arguments.format == "both" else (arguments.format,)
    with ExitStack() as stack:
        folder = arguments.folder or Path(stack.enter_context(TemporaryDirectory()))
        write(arguments.model, folder, formats, arguments.data)
        if arguments.folder:
            size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
            print(f"The exported model is in {folder}, {size / 1e6:.1f} MB; its README.md explains how to use it.")
        if arguments.push:
            from ddpm.model.hub import push

            page = push(folder, arguments.push)
            print(f"The model is at {page}; a new repository is private until its settings change.")


def write(source: Path, folder: Path, formats: Sequence[str], data: str | None) -> None:
    """Write a model in diffusers' format, in half precision, or both side by side, with its card."""
    # Imported here, because torch takes seconds and the other commands do without.
    from ddpm.model.diffusers_format import FILES, save_diffusers
    from ddpm.model.model_file import CARD, CONFIG_FILE, WEIGHTS_FILE, is_half, save_half
    from ddpm.model.trained import load_model
    from ddpm.reporting.model_card import model_card, scores_of
    from ddpm.runtime.checksums import checksum

    ours, theirs = "half" in formats, "diffusers" in formats
    files = (*(FILES if theirs else ()), *((WEIGHTS_FILE, CONFIG_FILE) if ours else ()), CARD)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    first = files[0]  # to be written; without it the rest is somebody else's, such as a README.md
    if folder.is_file() or not found <= set(files) or (found and first not in found):
        raise InputError(f"{folder}: holds something else than an exported model; name a new or an empty folder")
    model = load_model(source, device="cpu")
    sha256 = checksum(source / WEIGHTS_FILE)
    scores = scores_of(sha256, REPORTS / "scores" / "scores.json")
    card = model_card(model.config, sha256, scores, formats, data)
    if ours and WEIGHTS_FILE in found and not is_half(folder):
        raise InputError(f"{folder}: holds a model of full precision, or a damaged one; name an empty folder")
    if theirs:
        save_diffusers(folder, model.unet.state_dict(), model.config)
    if ours:
        save_half(folder, model.unet.state_dict(), model.config)
    (folder / CARD).write_text(card, encoding="utf-8")
