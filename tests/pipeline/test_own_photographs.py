"""The guide's lines for one's own photographs, as they stand there, with a name that is hard on every parser."""

import os
import re
import subprocess
from pathlib import Path

from PIL import Image

from tests.support import ROOT
from tests.support.tiny_repository import call, environment

NAME = 'Blüten (2024), [x] {y} O\'Neil "q" $z 100% a=b;c:d \\ #1 %41'


def test_the_lines_of_the_guide_work_for_a_folder_of_any_name(fresh: Path, tmp_path: Path) -> None:
    for label in ("rose", "tulip, 'red'"):
        for number in range(2):
            path = tmp_path / NAME / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (20, 20), (90 * number, 0, 99)).save(path)
    text = (ROOT / "docs/guide/photographs.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"\A# Your own photographs.*?```sh\n(.*?)```", text, re.DOTALL)
    assert "dvc exp run\n" in block
    lines = block.replace("$HOME/photographs", "$PHOTOS").replace("dvc exp run", "dvc exp run download")
    for _ in range(2):  # also where the folder is named already
        done = subprocess.run(
            ["sh", "-ec", lines],
            cwd=fresh,
            env=environment() | {"PHOTOS": os.fspath(tmp_path / NAME)},
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0 and "ERROR" not in done.stdout + done.stderr, done.stdout + done.stderr
    (fresh / "photographs").symlink_to(tmp_path / NAME)  # as data/README.md offers it
    assert "photographs" not in call(fresh, "git", "status", "--short")
    manifest = (fresh / "data/raw/fetched/manifest.csv").read_text(encoding="utf-8")
    assert manifest.count("\n") == 5 and "rose/0.png" in manifest
