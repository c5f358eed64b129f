"""The documentation: links lead somewhere, commands are known, those of README and guide run as they stand."""

import importlib.util
import re
import subprocess
from pathlib import Path

import pytest
from dvc.cli.parser import get_main_parser
from PIL import Image

from ddpm.__main__ import command_line
from ddpm.config import flatten
from tests.support import ROOT
from tests.support.documents import anchors, blocks, commands, lines, links, pages, text_of
from tests.support.tiny_repository import call, environment, make_repository, runs

GUIDE = [page for page in pages() if page == Path("README.md") or page.parent == Path("docs/guide")]

# What is not run here, and which test or person has it instead.
ELSEWHERE = {
    "git clone ADDRESS": "wants an address; .ci/run works on a clean clone",
    "make demo": "the first command of .ci/run",
    "make test": "the last command of .ci/run",
    "source .venv/bin/activate": "the tests run in that environment",
    "dvc queue start": "test_sweep.py",
    "mlflow ui": "test_pages.py, in a browser",
    "mlflow models serve": "tests/tracking/test_served.py",
    "curl": "tests/tracking/test_served.py",
    "xdg-open": "wants a desktop; test_pages.py opens the page in a browser",
    "pip install": "wants a network",
    "hf auth login": "wants a network",
    "python -m ddpm export --push": "tests/model/test_hub.py",
    "git pull": "wants another person's commits",
}


@pytest.mark.parametrize("page", pages(), ids=str)
def test_links_and_anchors_lead_somewhere(page):
    for link in links(page):
        target, _, anchor = link.partition("#")
        if re.match(r"https?://|mailto:", target):
            continue
        file = (page.parent / target) if target else page
        assert (ROOT / file).exists(), link
        if anchor:
            assert anchor in anchors(Path(ROOT / file).resolve().relative_to(ROOT)), link


@pytest.mark.parametrize("page", pages(), ids=str)
def test_a_page_is_short(page):
    assert text_of(page).count("\n") <= (120 if page == Path("README.md") else 300)


@pytest.mark.parametrize("page", pages(), ids=str)
def test_commands_are_those_of_the_programs(page, params):
    """Parsed by the parsers of ddpm and of DVC; parameters are those of params.yaml, modules and targets are there."""
    known = flatten(params).keys()
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    for words in (words for block in blocks(page, "sh") for words in commands(block)):
        match words:
            case ["python", "-m", "ddpm", *rest]:
                command_line().parse_args(rest)
            case ["python", "-m", module, *_]:
                assert importlib.util.find_spec(module), words
            case ["make", *rest]:
                assert set(rest) <= set(targets), words
            case ["dvc", *rest]:
                settings = getattr(get_main_parser().parse_args(rest), "set_param", None) or []
                assert {setting.partition("=")[0] for setting in settings} <= set(known), words


# ---- running them


@pytest.fixture(scope="module")
def repositories(tmp_path_factory) -> dict[bool, Path]:
    """With a finished run each, by whether its model knows classes."""
    return {conditional: finished(tmp_path_factory.mktemp("documents"), conditional) for conditional in (False, True)}


@pytest.fixture
def reproduced(page, repositories) -> Path:
    """The repository that a page speaks of; diffusers' unconditional pipeline takes no class."""
    return repositories["--class " in text_of(page)]


def finished(folder: Path, conditional: bool) -> Path:
    root = make_repository(folder / "repository", model={"conditional": conditional})
    call(root, "dvc", "repro")
    call(root, "git", "add", "dvc.lock")
    call(root, "git", "-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "run")
    return root


@pytest.fixture
def names(reproduced, tmp_path, params) -> dict[str, str]:
    """What stands in the pages for something of the reader's own."""
    for number in range(12):
        path = tmp_path / "photographs" / f"kind {number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((20, 20), 10 + number).save(path)
    (tmp_path / "larger disk").mkdir()
    return {
        "RUN_ID": runs(reproduced)[0].info.run_id,
        "$HOME/photographs": str(tmp_path / "photographs"),
        "s3://bucket/flowers-ddpm": str(tmp_path / "remote"),
        "cache dir FOLDER": f"cache dir '{tmp_path}/larger disk'",
        "sunflower": "2",  # a class of the synthetic flowers
        '"0.0002"': f'"{params["train"]["lr"]}"',
        "%H100%": "%",
    }


def typed(block: str, names: dict[str, str]) -> str:
    """A block as a reader would type it, without the lines that another test runs."""
    kept = [line for line in lines(block) if not line.removeprefix("export ").startswith(tuple(ELSEWHERE))]
    text = "\n".join(kept)
    for name, own in names.items():
        text = text.replace(name, own)
    return text


@pytest.mark.slow
@pytest.mark.parametrize("page", GUIDE, ids=str)
def test_a_page_runs_from_its_first_line_to_its_last(page, reproduced, names):
    shown = [(language, block) for language in ("sh", "python") for block in blocks(page, language)]
    shown.sort(key=lambda block: text_of(page).index(block[1]))
    assert shown
    for language, block in shown:
        call(reproduced, "git", "checkout", "-q", "--", "params.yaml")
        program = ["bash", "-ec"] if language == "sh" else ["python", "-c"]
        text = typed(block, names)
        done = subprocess.run(
            [*program, text], cwd=reproduced, env=environment(), capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, f"{text}\n{done.stdout[-3000:]}{done.stderr[-3000:]}"
        call(reproduced, "dvc", "queue", "remove", "--all")


def test_every_exception_is_needed():
    written = [words for page in GUIDE for block in blocks(page, "sh") for words in commands(block)]
    for start in ELSEWHERE:
        assert any(" ".join(words).startswith(start) for words in written), start
