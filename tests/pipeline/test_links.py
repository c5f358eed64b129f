"""DVC's cache.type: outputs that are links into the cache are read, and the cache is never written through them."""

import hashlib
from pathlib import Path

import pytest
import yaml

from tests.support.tiny_repository import call, digests, make_repository

pytestmark = pytest.mark.slow

STAGES = ["download", "preprocess", "explore", "reference", "train", "sample", "fid", "report"]


def wrong_in_cache(root: Path) -> list[str]:
    """Files of DVC's cache that are not what their name, an MD5, says."""
    files = [path for path in (root / ".dvc/cache/files/md5").glob("*/*") if path.suffix != ".dir"]
    assert files
    return [str(path) for path in files if hashlib.md5(path.read_bytes()).hexdigest() != path.parent.name + path.name]


@pytest.mark.parametrize("kind", ["symlink", "hardlink", "reflink,hardlink,copy"])
def test_the_pipeline_gives_the_same_bytes_whatever_the_cache_links(reproduced, tmp_path, kind):
    root = make_repository(tmp_path / "repository")
    call(root, "dvc", "config", "--local", "cache.type", kind)
    call(root, "dvc", "repro")
    assert yaml.safe_load((root / "dvc.lock").read_text()) == yaml.safe_load((reproduced / "dvc.lock").read_text())
    linked = [path for path in (root / "reports").rglob("*") if path.is_symlink() or path.stat().st_nlink > 1]
    assert (root / "reports/samples/grid.png") in linked
    before = {stage: digests(root, stage) for stage in STAGES}
    for stage in ("preprocess", "explore", "sample", "report"):  # by hand
        call(root, "python", "-m", f"stages.{stage}")
    assert {stage: digests(root, stage) for stage in STAGES} == before and wrong_in_cache(root) == []
    assert "up to date" in call(root, "dvc", "status")
    call(root, "python", "-m", "ddpm", "sample", "--n", "4", "--steps", "2")
    call(root, "python", "-m", "ddpm", "compare")
