"""A repository per file of tests, as made and as `dvc repro` leaves it."""

from pathlib import Path

import pytest

from tests.support.tiny_repository import call, make_repository, stages_run


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_repository(tmp_path_factory.mktemp("pipeline") / "repository")


@pytest.fixture(scope="module")
def reproduced(fresh: Path) -> Path:
    """The same repository after the first `dvc repro`."""
    output = call(fresh, "dvc", "repro")
    assert stages_run(output) == ["download", "preprocess", "explore", "reference", "train", "sample", "fid", "report"]
    return fresh
