"""What a person sees: the MLflow UI with our runs, and the pages of the reports, in a real browser."""

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request
from urllib.parse import quote

import numpy as np
import pytest

from ddpm.tracking import runs as tracking
from tests.support.browser import needs_chromium, open_page
from tests.support.tiny_repository import call, environment, make_repository, wait_for
from tests.support.tracked import client

ML = "workflowType=machine_learning"

pytestmark = [pytest.mark.slow, needs_chromium]


@pytest.fixture
def runs_of_two_schedules(tracked, repository):
    """Runs with curves, two grids and scores: their experiment and their ids by schedule."""
    for number, schedule in enumerate(("linear", "cosine")):
        config = tracked.model_copy(update={"schedule": schedule, "epochs": 300})
        with tracking.training_run(config, f"key of {schedule}") as run:
            for step in (1, 2):
                run.metrics({"train/loss": 1 / step, "heldout/loss": 1.1 / step}, step)
                run.image("samples", np.full((32, 32, 3), 100 * step, np.uint8), step)
        with tracking.later_stage(config, f"key of {schedule}") as run:
            run.metrics({"inception/fid": 14.5 + number, "inception/fid_low": 14.0 + number})
    experiment = client(repository).get_experiment_by_name(tracked.tracking.experiment)
    found = client(repository).search_runs([experiment.experiment_id])
    return experiment.experiment_id, {run.data.params["schedule"]: run.info.run_id for run in found}


@pytest.fixture
def ui(repository):
    """Address of `mlflow ui` over the repository's store."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--port", str(port)]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    server = subprocess.Popen(command, cwd=repository, env=environment(), start_new_session=True, **quiet)

    def answers():
        try:
            return urllib.request.urlopen(f"{address}/health", timeout=1).status == 200
        except OSError:
            return False

    try:
        wait_for(answers, 120)
        yield address
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def test_the_mlflow_ui_shows_readable_names_grouped_metrics_and_a_comparison(runs_of_two_schedules, ui, tmp_path):
    experiment, ids = runs_of_two_schedules
    names = [f"{schedule} · 300 epochs" for schedule in ids]
    chosen = f"runs={quote(json.dumps([*ids.values()]))}&experiments={quote(json.dumps([experiment]))}"
    pages = {
        f"/#/experiments/{experiment}/runs": names,
        # One group of charts for each prefix; those below the window are not there yet.
        f"/#/experiments/{experiment}/runs?compareRunsMode=CHART": [*names, "heldout/loss", "inception/fid"],
        # The views of ddpm/tracking/views.py, in the mode for model training.
        f"/#/experiments/{experiment}/runs?{ML}&viewStateShareKey=scores": ["Model registry", "inception/fid", "15.5"],
        f"/#/experiments/{experiment}/runs?{ML}&viewStateShareKey=seeds": ["Group: schedule: cosine, epochs: 300"],
        f"/#/compare-runs?{chosen}": [*names, "Comparing 2 Runs", "inception/fid", "train/loss", "14.5", "15.5"],
    }
    for url, expected in pages.items():
        for _ in range(3):  # on a busy machine, the page is taken before all of it has come
            page, errors = open_page(ui + url, tmp_path)
            assert errors == []
            missing = [text for text in expected if text not in page]
            if not missing:
                break
        assert missing == [], url


def test_the_pages_of_a_run_open_with_their_pictures_and_hostile_names_do_nothing(tmp_path):
    experiment = "<script>document.title='owned'</script>"
    root = make_repository(tmp_path / "repository", tracking={"experiment": experiment})
    call(root, "dvc", "repro")
    call(root, "python", "-m", "ddpm", "compare")
    pages = {
        "fid": ["FID report: linear schedule, 2 epochs", "Does it copy?", "as many real images"],
        "cost": ["What it cost"],
        "explore": ["log-SNR", "held out"],
        "comparison": ["Comparison of 1 scored run", "&lt;script&gt;"],
    }
    for name, expected in pages.items():
        page, errors = open_page((root / "reports" / f"{name}.html").as_uri(), tmp_path)
        assert errors == []
        assert [text for text in expected if text not in page] == [], name
        assert "<script" not in page and "owned</title>" not in page
        assert "http://" not in page and page.count("<img") == page.count('src="data:image/')
