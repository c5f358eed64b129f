"""The pages of the documentation: their links, anchors, and the code that a reader would type."""

import re
import shlex
from pathlib import Path

from tests.support import ROOT

REPORTS = {"reports/benchmarks/recipe.md", "reports/study.md", "shipped/README.md"}  # written by the product


def pages() -> list[Path]:
    """All pages that people wrote, from the root of the repository."""
    found = [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("*/README.md")]
    return sorted(page.relative_to(ROOT) for page in found if not set(page.parts) & {".venv", ".demo"})


def text_of(page: Path) -> str:
    return (ROOT / page).read_text(encoding="utf-8")


def blocks(page: Path, language: str) -> list[str]:
    """The fenced blocks of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", text_of(page), re.DOTALL | re.MULTILINE)


def prose(page: Path) -> str:
    """A page without its blocks of code."""
    return re.sub(r"^```.*?^```", "", text_of(page), flags=re.DOTALL | re.MULTILINE)


def links(page: Path) -> list[str]:
    """Targets of all links and pictures."""
    return re.findall(r"\]\(([^)\s]+)\)", re.sub(r"`[^`\n]*`", "", prose(page)))


def anchors(page: Path) -> set[str]:
    """The anchors that GitHub gives to the headings of a page."""
    found: set[str] = set()
    for heading in re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).replace("`", "").strip().lower()
        found.add(re.sub(r"[^\w\- ]", "", plain).replace(" ", "-"))
    return found


def lines(block: str) -> list[str]:
    """The lines of a block of shell, each with its continuations."""
    return block.replace("\\\n", " ").replace("|\n", "| ").splitlines()


def commands(block: str) -> list[list[str]]:
    """The commands of a block of shell, as words, without what sets the environment or takes up the output."""
    found = []
    for line in lines(block):
        words = shlex.split(line, comments=True)
        while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
            words = words[1:]
        cut = next((number for number, word in enumerate(words) if word in ("|", ">", "&", "&&")), len(words))
        if words[:cut]:
            found.append(words[:cut])
    return found
