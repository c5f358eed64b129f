"""The sweep of docs/scaling.md: a job for each experiment, with a common cache and a common tracking server.

A job is a process here, and `scontrol` only notes what it is told.
"""

import subprocess
from pathlib import Path

import pytest

from tests.support.documents import blocks
from tests.support.tiny_repository import call, environment, make_repository, stages_run
from tests.support.tracking_server import server_runs

pytestmark = pytest.mark.slow

LENGTHS = "epochs=(2 6 18)"


@pytest.fixture(scope="module")
def cluster(tmp_path_factory, line):
    """The repository, prepared as the page says, and a function that starts the job of an experiment."""
    folder = tmp_path_factory.mktemp("cluster")
    prepare, script, _ = (block for block in blocks(Path("docs/scaling.md"), "sh") if "sweep" in block)
    assert LENGTHS in script
    repository = make_repository(folder / "repository")
    (folder / "scontrol").write_text(f'#!/bin/sh\necho "$@" >> {folder}/said\n')
    (folder / "scontrol").chmod(0o755)
    settings = environment() | {"SCRATCH": str(folder), "SLURM_JOB_ID": "123", "PYTHONUNBUFFERED": "1"}
    settings |= {f"GIT_{who}_{what}": "n" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")}
    settings["PATH"] = f"{folder}:{settings['PATH']}"
    # The server runs already, the jobs come below, and the tiny parameters stay.
    without = ("mlflow server", "sbatch", "python -m ddpm use study")
    prepare = "\n".join(line for line in prepare.splitlines() if not line.startswith(without))
    subprocess.run(["bash", "-ec", prepare], cwd=repository, env=settings, check=True, capture_output=True)

    def job(number: int) -> subprocess.Popen:
        text = script.replace(LENGTHS, "epochs=(1 2 60)").replace("source .venv/bin/activate\n", "")
        text = text.replace("http://HOST:5000", line.address)
        pipe, command = subprocess.PIPE, ["bash", "-c", text]
        environ = settings | {"SLURM_ARRAY_TASK_ID": str(number)}
        return subprocess.Popen(command, cwd=repository, env=environ, stdout=pipe, stderr=subprocess.STDOUT, text=True)

    return repository, job


def test_jobs_at_the_same_time_share_data_and_server_and_hand_their_experiments_over(cluster, line):
    repository, job = cluster
    jobs = [job(0), job(4)]
    for process in jobs:
        printed = process.communicate()[0]
        assert process.returncode == 0, printed
        assert stages_run(printed) == ["train", "sample", "fid", "report"], printed  # the data came from the cache
    found = {run.data.tags["dvc.exp_name"]: run for run in server_runs(line)}
    assert {name: (run.data.params["schedule"], run.data.params["epochs"]) for name, run in found.items()} == {
        "sweep-0": ("linear", "1"), "sweep-4": ("cosine", "2"),
    }  # fmt: skip
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert {"sweep-0", "sweep-4"} <= set(call(repository, "dvc", "exp", "list", "--name-only").split())
    call(repository, "dvc", "exp", "apply", "sweep-4")  # from the common cache
    assert (repository / "models/model.safetensors").exists()
    call(repository, "git", "checkout", "-q", "--", ".")


def test_a_job_whose_time_is_over_asks_to_be_run_again_and_goes_on(cluster, line, tmp_path):
    repository, job = cluster
    process = job(8)
    printed = ""
    for text in process.stdout:
        printed += text
        if "The training takes" in text:
            break
    process.terminate()
    printed += process.communicate(timeout=120)[0]
    assert process.returncode == 143 and "run the same command again to go on" in printed, printed
    assert (repository.parent / "said").read_text() == "requeue 123\n"
    again = job(8)
    printed = again.communicate()[0]
    assert again.returncode == 0 and "Going on from the checkpoint after step" in printed, printed
    runs = [run for run in server_runs(line) if run.data.params["schedule"] == "sigmoid"]
    assert [run.info.status for run in runs] == ["FINISHED"]
