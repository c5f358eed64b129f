"""A sweep through DVC's queue, from a repository where nothing has run yet."""

import csv
import io

import pytest

from tests.support.tiny_repository import call, make_repository, runs, wait_for

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    root = make_repository(tmp_path_factory.mktemp("sweep") / "repository")
    call(root, "dvc", "exp", "run", "--queue", "-S", "schedule=linear,cosine", "-S", "epochs=1,2")
    # The queue runs what was queued, not what the workspace has become since.
    (root / "ddpm/training/loop.py").write_text("raise SystemExit('edited after queueing')")
    call(root, "dvc", "queue", "start", "-j", "2")

    def waiting():
        status = call(root, "dvc", "queue", "status")
        return "Queued" in status or "Running" in status

    wait_for(lambda: not waiting(), seconds=500, pause=3)
    call(root, "git", "checkout", "-q", "ddpm/training/loop.py")
    return root


def test_four_experiments_succeed(swept):
    status = call(swept, "dvc", "queue", "status")
    assert status.count("Success") == 4 and "Failed" not in status


def test_the_main_store_holds_four_finished_runs_that_agree_with_dvc(swept):
    found = runs(swept)
    assert [run.info.status for run in found] == ["FINISHED"] * 4
    by_setting = {(run.data.params["schedule"], run.data.params["epochs"]): run for run in found}
    assert len(by_setting) == 4
    table = csv.DictReader(io.StringIO(call(swept, "dvc", "exp", "show", "--csv", "--precision", "17")))
    rows = [row for row in table if row["Experiment"] and row["efficientnet_lite0.fid"]]
    assert len(rows) == 4
    for row in rows:
        run = by_setting[row["schedule"], row["epochs"]]
        assert run.data.tags["dvc.exp_name"] == row["Experiment"]
        for score in ("fid", "kid"):
            assert float(row[f"efficientnet_lite0.{score}"]) == run.data.metrics[f"efficientnet_lite0/{score}"]
        assert (
            "train/loss" in run.data.metrics
            and (swept / "mlartifacts" / run.info.run_id / "artifacts/report/fid.md").exists()
        )
