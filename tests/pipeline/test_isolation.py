"""A tiny repository with hostile names, whose stages run with the network cut off and watched."""

import html
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from tests.support.browser import needs_chromium, open_page
from tests.support.tiny_repository import call, digests, environment, make_repository, stages_run

pytestmark = pytest.mark.slow

# Python imports this first in every process, and notes whoever looks for a machine or connects to one. Between the
# processes of this machine, sockets have a path for an address.
WATCH = """
import os, sys

def watch(event, arguments):
    if event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.sendto", "socket.connect"):
        address = arguments[1] if event in ("socket.connect", "socket.sendto") else arguments[0]
        if not isinstance(address, (str, bytes)) or event.startswith("socket.get"):
            with open(os.environ["WATCH_LOG"], "a") as log:
                print(os.getpid(), sys.argv, event, address, file=log)

sys.addaudithook(watch)
"""
HOSTILE = [
    "<script>alert(1)<",
    "<img src=x onerror=document.title='owned'>",
    "[a](javascript:alert(1))|b`c`",
    "$(touch escaped)",
    "'; touch escaped; '",
]
APART = ["unshare", "-rn"]


def watch(folder: Path) -> dict[str, str]:
    return environment() | {"PYTHONPATH": str(folder / "watch"), "WATCH_LOG": str(folder / "log")}


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    """After `dvc repro`, in which only `download` had a network."""
    folder = tmp_path_factory.mktemp("isolation")
    for name in HOSTILE:
        for number in range(6):
            path = folder / "photos" / name / f"{number} $(touch escaped).png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (40 * number, 0, 99)).save(path)
    (folder / "photos" / HOSTILE[0] / "<img src=x>.jpg").write_bytes(b"no image")
    data = {"source": "folder", "path": str(folder / "photos"), "on_bad_image": "skip"}
    root = make_repository(folder / "repository", data=data, model={"conditional": True})
    call(root, "dvc", "repro", "download")
    (folder / "watch").mkdir()
    (folder / "watch/sitecustomize.py").write_text(WATCH)
    watched = watch(folder)
    apart = APART if subprocess.run([*APART, "true"], check=False).returncode == 0 else []
    commands = [
        ["dvc", "repro"],
        ["python", "-m", "ddpm", "sample", "--each-class", "--steps", "2", "--out", str(folder / "each.png")],
        ["python", "-m", "ddpm", "export", str(folder / "exported")],
        ["python", "-m", "ddpm", "sync"],
    ]
    for command in commands:
        done = subprocess.run([*apart, *command], cwd=root, env=watched, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "Traceback" not in done.stderr
    return root


def test_no_stage_but_download_looks_for_another_machine(root):
    log = root.parent / "log"
    assert not log.exists(), log.read_text()
    command = [sys.executable, "-c", "import socket; socket.gethostbyname('nowhere.invalid')"]
    subprocess.run(command, env=watch(root.parent), stderr=subprocess.DEVNULL, check=False)
    assert "nowhere.invalid" in log.read_text()


def test_names_of_files_and_classes_are_nowhere_run_or_shown_as_markup(root):
    assert not list(root.parent.rglob("escaped"))
    for page in (root / "reports/fid.md", root.parent / "exported/README.md"):
        text = page.read_text(encoding="utf-8")
        assert "<script" not in text and "<img" not in text and "touch" not in text, page


@needs_chromium
def test_names_of_classes_are_text_in_a_browser(root, tmp_path):
    page, errors = open_page((root / "reports/explore.html").as_uri(), tmp_path)
    assert errors == [] and "owned</title>" not in page
    assert [name for name in HOSTILE if f"<td>{html.escape(name, quote=False)}</td>" not in page] == []
    assert "javascript:alert(1)" in page and 'href="javascript' not in page


def test_the_report_leads_to_the_list_of_what_was_skipped(root):
    assert "[1 more](explore/skipped.txt) could not be used" in (root / "reports/fid.md").read_text(encoding="utf-8")
    listed = (root / "reports/explore/skipped.txt").read_text(encoding="utf-8")
    assert listed == f"{HOSTILE[0]}/<img src=x>.jpg: it is none of the known formats\n"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (["schedule=bogus"], "schedule: found 'bogus', choose 'linear', 'cosine' or 'sigmoid'"),
        # Of stages that would come later.
        (["epochs=3", "sample.steps=2000"], "sample.steps: 2000 is more than diffusion.timesteps"),
        (["seed=5", "fid.extractor=vgg"], "fid.extractor: found 'vgg'"),
    ],
)
def test_a_bad_parameter_ends_before_any_stage_works_and_nothing_is_lost(root, changes, sentence):
    stages = ("preprocess", "train", "sample", "report")
    before = {stage: digests(root, stage) for stage in stages}
    options = [word for change in changes for word in ("-S", change)]
    output = call(root, "dvc", "exp", "run", *options, check=False)
    assert "error: " in output and sentence in output and "Traceback" not in output
    assert "exited with 2" in output and len(stages_run(output)) == 1
    assert not list((root / ".ckpt").glob("*/state.pt"))
    call(root, "git", "checkout", "params.yaml")
    call(root, "dvc", "checkout", "--force")
    assert {stage: digests(root, stage) for stage in stages} == before


def test_packed_images_changed_behind_dvcs_back_are_made_anew(root):
    lock = (root / "dvc.lock").read_bytes()
    before = digests(root, "preprocess")
    path = root / "data/processed/images.npy"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.unlink()
    path.write_bytes(content)
    call(root, "dvc", "repro")
    assert digests(root, "preprocess") == before and (root / "dvc.lock").read_bytes() == lock
    shutil.rmtree(root / "data/processed")
    call(root, "dvc", "repro")
    assert digests(root, "preprocess") == before
