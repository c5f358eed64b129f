"""What is written about data and models: Markdown that reads well on a git host."""

import re
from collections.abc import Mapping
from pathlib import Path

import jinja2

from ddpm.runtime.progress import duration

TEMPLATES = Path(__file__).parent / "templates"
# What Markdown, or the HTML within it, would take for more than a letter; _ is only one at the edge of a word.
SPECIAL = re.compile(r"[\\`*\[\]<>|&~$#!]|(?<![^\W_])_|_(?![^\W_])")

EXTRACTOR_NOTES = {
    "inception": "The features are those of `pytorch-fid`: the scores can be compared with published ones that use the "
    "same images, resolution and number of samples.",
    "efficientnet_lite0": "The features are **not** those of the Inception network: these scores compare runs of this "
    "project with each other and **cannot be compared with any published FID**.",
}


def render(context: Mapping[str, object], template: str = "fid.md.j2") -> str:
    """Fill in a template, by default that of reports/fid.md.

    Raises:
        jinja2.UndefinedError: the context lacks something; a fault of the program.
    """
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        autoescape=False,
    )
    environment.filters |= {"plain": plain, "duration": duration}
    return environment.get_template(template).render(context, extractor_notes=EXTRACTOR_NOTES)


def plain(name: object) -> str:
    """Escape what a user has named, so that Markdown shows it as it is on one line, in a table as well."""
    return SPECIAL.sub(r"\\\g<0>", " ".join(str(name).split()))
