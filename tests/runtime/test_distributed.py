"""Several processes at one training, as torchrun starts them, on the CPU."""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
import torch

import stages.sample
from ddpm.config import parse_config
from ddpm.runtime.distributed import ALONE, Group
from ddpm.runtime.errors import InputError
from tests.support import ROOT
from tests.support.networks import write_model
from tests.support.processes import TWO, share, start
from tests.support.shared_training import prepare, train
from tests.support.tiny_repository import wait_for
from tests.support.trainings import run


def curves(folder: Path) -> list[dict[str, float]]:
    return json.loads((folder / "history.json").read_text())


@pytest.fixture(scope="module")
def alone() -> list[dict[str, float]]:
    torch.manual_seed(0)
    history, _ = run(prepare())
    return history.train + history.heldout


def assert_close(ours: list[dict[str, float]], theirs: list[dict[str, float]]) -> None:
    assert len(ours) == len(theirs)
    for our, their in zip(ours, theirs, strict=True):
        assert our.keys() == their.keys()
        assert our["loss"] == pytest.approx(their["loss"], rel=1e-5)
        assert our == pytest.approx(their, rel=1e-3)


@pytest.mark.parametrize(("count", "size"), [(10, 1), (10, 3), (10, 4), (128, 64), (3, 3)])
def test_shares_are_everything_once_and_nearly_equal(count, size):
    shares = [range(count)[Group(rank, size).share(count)] for rank in range(size)]
    assert [number for share in shares for number in share] == list(range(count))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1


def test_two_processes_have_the_loss_curve_of_one(tmp_path, alone):
    code, complaint = share(tmp_path)
    assert code == 0, complaint
    assert_close(curves(tmp_path), alone)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # g++ compiles dozens of files for each process
@pytest.mark.skipif(not shutil.which("g++"), reason="needs g++, with which torch.compile compiles for a CPU")
def test_two_compiled_processes_have_the_loss_curve_of_one_that_is_not_compiled(tmp_path, alone):
    code, complaint = share(tmp_path, patience=1700, compiled=True)
    assert code == 0, complaint
    assert_close(curves(tmp_path), alone)


def test_four_processes_on_two_machines_have_the_loss_curve_of_one(tmp_path, alone):
    """As far as one machine can play two; with gradients that are accumulated, over shares that are not equal."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        meeting = f"127.0.0.1:{free.getsockname()[1]}"
    torchrun = ["--nnodes", "2", "--nproc-per-node", "2", "--rdzv-backend", "c10d", "--rdzv-endpoint", meeting]
    machines = [start(*torchrun, folder=tmp_path) for _ in range(2)]
    complaints = [machine.communicate(timeout=120)[1] for machine in machines]
    assert [machine.returncode for machine in machines] == [0, 0], complaints
    assert_close(curves(tmp_path), alone)


def test_a_training_goes_on_with_another_number_of_processes(tmp_path, alone):
    """First one, then two, then one; stopped between two points of the curve, so that its sums are taken over too."""
    assert train(ALONE, tmp_path, stop=3) is None
    code, complaint = share(tmp_path, stop=7)
    assert code == 0, complaint
    history = train(ALONE, tmp_path)
    assert_close(history.train + history.heldout, alone)


@pytest.mark.parametrize("rank", [0, 1])
def test_a_fault_in_one_process_ends_all_with_its_sentence_and_exit_code(tmp_path, rank):
    assert share(tmp_path, fault=rank) == (2, "error: this is what went wrong\n")


@pytest.fixture
def endless(tmp_path):
    """A launcher, and its processes, which wait for each other all the time."""
    launcher = start(*TWO, folder=tmp_path, endless=True)
    try:
        wait_for(lambda: len([file for file in tmp_path.glob("pid*") if file.read_text()]) == 2)
        workers = [psutil.Process(int(file.read_text())) for file in tmp_path.glob("pid*")]
        yield launcher, workers
    finally:
        launcher.kill()  # and its processes end with it
        launcher.communicate()


def test_no_process_outlives_its_launcher(endless):
    launcher, workers = endless
    launcher.kill()
    assert psutil.wait_procs(workers, timeout=20)[1] == []


def test_sigterm_to_the_launcher_ends_all_with_the_right_exit_code(endless):
    launcher, workers = endless
    launcher.terminate()
    assert psutil.wait_procs(workers, timeout=20)[1] == []
    assert launcher.communicate(timeout=20)[1] == "" and launcher.returncode == 128 + signal.SIGTERM


def test_a_process_that_was_killed_is_told_in_a_sentence(endless):
    launcher, workers = endless
    workers[0].kill()
    complaint = launcher.communicate(timeout=20)[1]
    assert launcher.returncode == 128 + signal.SIGKILL
    assert complaint == "error: SIGKILL ended one of the processes; run the same command again\n"
    assert psutil.wait_procs(workers, timeout=20)[1] == []


MEET = """
from ddpm.runtime.distributed import process_group
with process_group() as group:
    ranks = group.gather(group.rank)
    if ranks:
        print(ranks)
"""
NAMELESS = "import os, socket, sys; socket.sethostname('no-such-machine'); os.execv(sys.argv[1], sys.argv[1:])"


@pytest.mark.skipif(
    subprocess.run(["unshare", "-ru", "true"], check=False).returncode != 0,
    reason="a name of one's own for the machine needs user namespaces, which this system does not allow",
)
def test_processes_meet_on_a_machine_whose_name_leads_nowhere(tmp_path):
    """As in many containers, and on laptops away from their network."""
    (tmp_path / "meet.py").write_text(MEET)
    command = ["unshare", "-ru", sys.executable, "-c", NAMELESS, sys.executable, "-m", "ddpm.runtime.distributed"]
    done = subprocess.run(
        [*command, *TWO, str(tmp_path / "meet.py")], cwd=ROOT, env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=-1, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == b"[0, 1]\n"


def test_before_its_processes_start_a_launcher_says_what_is_wrong_and_nothing_else(
    tmp_path, params, tiny_model, monkeypatch, capsys
):
    """Each of them will say that there is no GPU."""
    started = []
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("DDPM_PROCESSES", "2")
    monkeypatch.setattr(os, "execv", lambda *_: started.append(True) or sys.exit(0))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(InputError, match="models: no model can be read here"):
        stages.sample.main(parse_config(params))
    write_model(tmp_path / "models", tiny_model, conditional=False)
    with pytest.raises(InputError, match="PyTorch sees no CUDA GPU"):
        stages.sample.main(parse_config(params | {"device": "cuda"}))
    assert not started
    with pytest.raises(SystemExit):
        stages.sample.main(parse_config(params | {"device": "auto"}))
    assert started and capsys.readouterr().err == ""
