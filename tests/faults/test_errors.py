"""Every case of the table in tests/support/cases is provoked; docs/errors.md is that table."""

import importlib
import re
import shlex
import sys
from contextlib import ExitStack

import numpy as np
import pytest
import torch
import yaml

from ddpm.config import load_config
from ddpm.runtime.errors import guarded
from tests.support import ROOT
from tests.support.cases import CASES
from tests.support.cases.case import Case, Place
from tests.support.errors_page import page

OUTS = {
    name: [
        out if isinstance(out, str) else next(iter(out)) for out in [*stage.get("outs", []), *stage.get("metrics", [])]
    ]
    for name, stage in yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"].items()
}


@pytest.fixture
def place(tmp_path, params, monkeypatch):
    """An empty repository as the working directory, with the committed parameters."""
    root = tmp_path / "repository"
    (root / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(root)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with ExitStack() as stack:
        yield Place(root, params, monkeypatch, stack)


def run(command: str, place: Place) -> None:
    """One stage, or a command of `python -m ddpm`, in this process."""
    if command == "load":
        guarded(load_config)
    elif command == "checkpoint":
        from ddpm.runtime.checkpoint import checkpoint_for

        with checkpoint_for("a" * 64) as kept:
            guarded(kept.load)
    elif command.startswith("ddpm"):
        from ddpm.__main__ import main

        place.patch.setattr(sys, "argv", shlex.split(command))
        main()
    else:
        stage = importlib.import_module(f"stages.{command}").main
        guarded(lambda: stage(load_config()))


def outputs(place: Place) -> dict[str, bytes]:
    """All files where a declared output should be."""
    places = [place.root / out for outs in OUTS.values() for out in outs]
    return {str(f): f.read_bytes() for out in places for f in (out, *out.rglob("*")) if f.is_file()}


def complaint(case: Case, place: Place, capsys: pytest.CaptureFixture) -> tuple[str, int]:
    """Provoke the fault; returns what stderr says from "error:" on, and the exit code."""
    case.prepare(place)
    place.write_params()
    *before, last = [case.run] if case.run.startswith("ddpm") else case.run.split()
    for command in before:
        run(command, place)
    case.between(place)
    already, code = outputs(place), 0
    try:
        run(last, place)
    except SystemExit as ended:
        code = ended.code
    printed = capsys.readouterr().err
    assert "Traceback" not in printed
    if code:
        left = {name for name in outputs(place) if name not in already} - {
            str(place.root / "data/weights/fetched/weights.json")
        }
        assert left == set(), "half-written outputs"
    said = printed[printed.index("error: ") + 7 :].rstrip("\n") if code else ""
    for secret, name in {f"{place.root}/": "", str(place.root): ".", **place.secrets}.items():
        said = said.replace(secret, name)
    return said, code


def matches(said: str, message: str) -> bool:
    return re.fullmatch(".+".join(map(re.escape, message.split("…"))), said) is not None


@pytest.mark.parametrize(
    "case", [pytest.param(case, id=f"{topic}: {case.given}") for topic, cases in CASES.items() for case in cases]
)
def test_what_is_wrong_is_said_in_a_sentence(case, place, capsys):
    said, code = complaint(case, place, capsys)
    assert code == case.code, said
    assert case.check(place)
    if code:
        assert matches(said, case.message), said


@pytest.mark.parametrize(
    ("take", "said"),
    [
        (lambda: torch.empty(10**14), "can't allocate memory: you tried to allocate 400000000000000 bytes; lower"),
        (lambda: np.empty(10**14), "Unable to allocate 728. TiB for an array with shape (100000000000000,) and"),
    ],
)
def test_a_lack_of_memory_that_is_real_is_told_without_places_in_a_source(take, said, capsys):
    with pytest.raises(SystemExit):
        guarded(take)
    printed = capsys.readouterr().err
    assert said in printed and "alloc_cpu" not in printed and printed.count("\n") == 1


def test_no_two_cases_of_a_topic_look_alike_and_there_are_enough():
    for topic, cases in CASES.items():
        assert len({case.given for case in cases}) == len(cases), topic
    assert sum(case.code > 0 for cases in CASES.values() for case in cases) >= 60


def test_the_page_is_the_table():
    committed = (ROOT / "docs/errors.md").read_text(encoding="utf-8")
    assert committed == page(), "run `python -m tests.support.errors_page > docs/errors.md`"
