"""What a stage leaves, and what it finds where its outputs will be."""

from pathlib import Path

import pytest

from ddpm.runtime.stage_files import detach


@pytest.mark.parametrize("link", [Path.symlink_to, Path.hardlink_to])
def test_a_file_in_the_cache_is_not_written_through_its_link(tmp_path: Path, link) -> None:
    cached, folder = tmp_path / "cached", tmp_path / "models"
    (folder / "deep").mkdir(parents=True)
    cached.write_text("kept")
    for name in ("models/weights", "models/deep/more", "page.md"):
        link(tmp_path / name, cached)
    (folder / "own").write_text("own")
    detach([folder, tmp_path / "page.md", tmp_path / "missing"])
    assert [path.name for path in sorted(tmp_path.rglob("*"))] == ["cached", "models", "deep", "own"]
    for name in ("models/weights", "page.md"):
        (tmp_path / name).write_text("new")
    assert cached.read_text() == "kept"
