"""`python -m ddpm export`: a trained model as a folder that other programs read, or that is small enough to pass on."""

import argparse
from pathlib import Path
from typing import Any

from ddpm.runtime.paths import MODELS


def add_parser(commands: Any) -> None:
    """Describe the command line."""
    help_text = "write a trained model in the format of another library, or in half the size"
    parser = commands.add_parser("export", help=help_text, description=help_text)
    parser.add_argument("folder", type=Path, metavar="DIR", help="where to; new, empty, or of an earlier export")
    parser.add_argument("--model", type=Path, default=MODELS, metavar="DIR", help="a model folder (default: models)")
    parser.add_argument(
        "--format",
        choices=["diffusers", "half"],
        default="diffusers",
        help="diffusers: a folder for DDPMPipeline.from_pretrained (default); half: a folder for `sample --model` and "
        "load_model, with the weights as float16; both with a model card",
    )
    parser.set_defaults(action=export)


def export(arguments: argparse.Namespace) -> None:
    """Read a model folder, and for a model card reports/scores/; write the exported model.

    Raises:
        InputError: there is no such model, it cannot be expressed in that format, or DIR holds something else.
    """
    # Imported here, because torch takes seconds and the other commands do without.
    from ddpm.model.diffusers_format import CARD, FILES, save_diffusers
    from ddpm.model.model_file import CONFIG_FILE, WEIGHTS_FILE, is_half, save_half
    from ddpm.model.trained import load_model
    from ddpm.reporting.model_card import model_card, scores_of
    from ddpm.runtime.checksums import checksum
    from ddpm.runtime.errors import InputError
    from ddpm.runtime.paths import REPORTS

    folder, file_format = arguments.folder, arguments.format
    files = FILES if file_format == "diffusers" else (WEIGHTS_FILE, CONFIG_FILE, CARD)
    found = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    first = files[0]  # to be written; without it the rest is somebody else's, such as a README.md
    if folder.is_file() or not found <= set(files) or (found and first not in found):
        raise InputError(f"{folder}: holds something else than an exported model; name a new or an empty folder")
    model = load_model(arguments.model, device="cpu")
    sha256 = checksum(arguments.model / WEIGHTS_FILE)
    card = model_card(model.config, sha256, scores_of(sha256, REPORTS / "scores" / "scores.json"), file_format)
    if file_format == "diffusers":
        save_diffusers(folder, model.unet.state_dict(), model.config, card)
    else:
        if WEIGHTS_FILE in found and not is_half(folder):
            raise InputError(f"{folder}: holds a model of full precision, or a damaged one; name an empty folder")
        save_half(folder, model.unet.state_dict(), model.config)
        (folder / CARD).write_text(card, encoding="utf-8")
    size = sum((folder / name).stat().st_size for name in files)
    print(f"The exported model is in {folder}, {size / 1e6:.1f} MB; its README.md says how to use it.")
