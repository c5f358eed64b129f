"""A Markdown page as one HTML file that needs nothing else: pictures and style are in it, and it asks no server."""

import base64
import html
import io
import re
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from urllib.parse import unquote

import jinja2
from markdown_it import MarkdownIt
from markdown_it.token import Token
from PIL import Image

from ddpm.runtime.errors import InputError

TEMPLATES = Path(__file__).parent / "templates"
FORMATS = {"PNG": "image/png", "JPEG": "image/jpeg", "GIF": "image/gif"}
SMALL = 160  # pixels; a narrower picture is enlarged by a whole factor, to at most twice this width
CONTENTS = 4  # from so many sections on, a page has a table of contents


def write_pages(markdown: str, folder: Path, name: str) -> None:
    """Write a text as NAME.md and NAME.html into a folder, under the title that is its first line.

    Raises:
        InputError: see `write_page`.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.md").write_text(markdown, encoding="utf-8")
    write_page(markdown, folder / f"{name}.html", markdown.partition("\n")[0].removeprefix("# "))


def write_page(markdown: str, path: Path, title: str) -> None:
    """Write Markdown as one HTML file, with the same bytes for the same text and pictures.

    Pictures lie at or below the page's folder and are embedded; one that is alone in its paragraph has its alternative
    text as caption. HTML in the text is shown as it is, and never interpreted. Links to `NAME.md` of the same folder
    become links to `NAME.html`, so that pages lead to each other in both forms.

    Args:
        markdown: CommonMark with tables.
        path: the file to write; its folder is created.
        title: plain text.

    Raises:
        InputError: a picture is missing, lies elsewhere, or is neither PNG, JPEG nor GIF.
    """
    parser = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = parser.parse(markdown)
    sections = _name_headings(tokens)
    _caption_pictures(tokens)
    for token in (child for block in tokens for child in block.children or []):
        if token.type == "image":
            _embed(token, path.parent)
        elif token.type == "link_open":
            token.attrs["href"] = re.sub(r"^([\w-]+)\.md(?=$|#)", r"\1.html", str(token.attrs["href"]))
    # A wide table scrolls in a box of its own.
    parser.add_render_rule("table_open", lambda *_: '<div class="scroll"><table>\n')
    parser.add_render_rule("table_close", lambda *_: "</table></div>\n")
    heading, end, rest = parser.renderer.render(tokens, parser.options, {}).rpartition("</h1>\n")
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(TEMPLATES), undefined=jinja2.StrictUndefined, autoescape=True, trim_blocks=True
    )
    page = environment.get_template("page.html.j2").render(
        title=title, sections=sections if len(sections) >= CONTENTS else [], heading=heading + end, body=rest
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(page, encoding="utf-8")


def _name_headings(tokens: Sequence[Token]) -> list[tuple[str, str]]:
    """Give each heading the anchor that git hosts give it; returns anchor and text of the sections (##)."""
    sections, seen = [], Counter[str]()
    for token, inline in pairwise(tokens):
        if token.type == "heading_open":
            text = _text(inline)
            anchor = re.sub(r"[^\w -]", "", text.lower()).replace(" ", "-")
            token.attrs["id"] = f"{anchor}-{seen[anchor]}" if seen[anchor] else anchor
            seen[anchor] += 1
            if token.tag == "h2":
                sections.append((str(token.attrs["id"]), text))
    return sections


def _caption_pictures(tokens: Sequence[Token]) -> None:
    """Turn each paragraph that is one picture alone into a figure with a caption."""
    for before, inline, after in zip(tokens, tokens[1:], tokens[2:], strict=False):
        children = inline.children or []
        if before.type == "paragraph_open" and [child.type for child in children] == ["image"]:
            before.tag = after.tag = "figure"
            caption = Token("html_inline", "", 0, content=f"<figcaption>{html.escape(_text(children[0]))}</figcaption>")
            inline.children = [*children, caption]


def _embed(token: Token, folder: Path) -> None:
    """Put the picture's bytes in the place of its name."""
    name = unquote(str(token.attrs["src"]))
    try:
        # By its name, because the file itself may be one of DVC's links into its cache.
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise ValueError("it lies elsewhere")
        content = (folder / name).read_bytes()
        with Image.open(io.BytesIO(content), formats=list(FORMATS)) as picture:
            width, height, media_type = *picture.size, FORMATS[str(picture.format)]
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise InputError(
            f"{folder}: the picture {name!r} of a page cannot be embedded ({reason}); "
            "run `dvc repro`, which draws all of them"
        ) from None
    factor = max(1, 2 * SMALL // width) if width < SMALL else 1
    token.attrs |= {"src": f"data:{media_type};base64,{base64.b64encode(content).decode()}"}
    token.attrs |= {"width": width * factor, "height": height * factor}
    if factor > 1:
        token.attrs["class"] = "pixels"


def _text(inline: Token) -> str:
    """The words of a heading or a picture, without markup."""
    return "".join(child.content or _text(child) for child in inline.children or [])
