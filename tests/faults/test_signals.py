"""Signals that ask a stage to end, as batch systems send them before the end of a time slot."""

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from ddpm.runtime import signals
from ddpm.runtime.checkpoint import Checkpoint
from tests.support import ROOT
from tests.support.documents import blocks
from tests.support.processes import TWO, start
from tests.support.tiny_repository import call, digests, environment, make_repository, wait_for

# Waits at the moment in question, and says so; then behaves as it will.
WAITING = """
import sys, time
from ddpm.runtime import signals
signals.listen()
def pause(seconds):
    print("here", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end and not (seconds < 60 and signals.asked()):
        time.sleep(0.01)
"""


@pytest.fixture(autouse=True)
def signals_as_at_a_terminal():
    """Children would inherit that SIGHUP is ignored, where the tests themselves run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def waiting(code: str, **settings: str) -> subprocess.Popen:
    """A process that has come to its `pause`."""
    process = subprocess.Popen(
        [sys.executable, "-c", WAITING + code],
        cwd=ROOT,
        env=os.environ | settings,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "here\n"
    return process


PATIENT = "with signals.patience(): pause({})\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT])
def test_a_signal_ends_a_process_at_once_where_there_is_nothing_to_keep(number):
    process = waiting("pause(600)")
    process.send_signal(number)
    assert process.communicate(timeout=20) == ("", "")
    assert process.returncode == 128 + number


def test_a_signal_in_the_middle_of_an_import_ends_a_process_after_it(tmp_path):
    """Here Python 3.11 would make a RuntimeError of it, and a library in C++ abort."""
    (tmp_path / "busy.py").write_text(
        "import os\n"
        "class Field:\n def __set_name__(self, owner, name): os.kill(os.getpid(), 15)\n"
        "class Model: field = Field()\n"
        "print('imported', flush=True)"
    )
    process = waiting(f"print('here', flush=True); sys.path.insert(0, {str(tmp_path)!r}); import busy; pause(600)")
    assert process.stdout.read().startswith("imported\n")  # not communicate, which knows nothing of what is buffered
    assert process.stderr.read() == "" and process.wait(timeout=20) == 143


def test_a_signal_that_was_put_off_ends_no_other_program(tmp_path):
    """A timer outlives `exec`, by which a stage becomes a launcher."""
    (tmp_path / "busy.py").write_text("import os; os.kill(os.getpid(), 15)")
    code = "import os, busy; signals.settle(); os.execv('/bin/sleep', ['sleep', '1'])"
    process = waiting(f"print('here', flush=True); sys.path.insert(0, {str(tmp_path)!r}); {code}")
    assert process.stderr.read() == "" and process.wait(timeout=20) == 143


def test_a_stage_that_is_still_being_imported_ends_without_a_traceback(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(
        "import os, sys\n"
        "class Finder:\n"
        " def find_spec(self, name, path=None, target=None):\n"
        "  if name == 'torch.nn': sys.meta_path.remove(self); os.kill(os.getpid(), 2)\n"
        "sys.meta_path.insert(0, Finder())"
    )
    settings = environment() | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-m", "stages.train"]
    done = subprocess.run(command, cwd=ROOT, env=settings, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "")


def test_a_patient_block_sees_the_signal_and_ends_by_itself():
    process = waiting("with signals.patience():\n pause(30)\n signals.end(signals.asked(), 'all is kept')")
    process.terminate()
    said = process.communicate(timeout=20)[1].splitlines()
    assert process.returncode == 143
    assert said[0].startswith("Finishing this step and keeping a checkpoint; ask again")
    assert said[1] == "SIGTERM: all is kept; run the same command again to go on"


def test_a_signal_that_comes_too_late_for_the_block_ends_it_all_the_same():
    process = waiting(PATIENT.format(30) + "time.sleep(600)")
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143


@pytest.mark.parametrize("number", [signal.SIGHUP, signal.SIGINT])
def test_nobody_who_listens_any_more_costs_no_checkpoint(number, tmp_path):
    """The terminal is closed, or Ctrl-C has ended the `tee` behind the pipe as well."""
    keep = f"open({str(tmp_path / 'kept')!r}, 'w').close(); print('kept', flush=True)"
    process = waiting(f"with signals.patience():\n pause(30)\n {keep}\n signals.end(signals.asked(), 'all is kept')")
    process.stdout.close()
    process.stderr.close()
    process.send_signal(number)
    assert process.wait(timeout=20) == 128 + number
    assert (tmp_path / "kept").exists()


def test_a_request_that_another_process_has_seen_makes_that_of_the_launcher_an_echo():
    process = waiting(
        "import atexit, os\n"
        "atexit.register(lambda: (os.kill(os.getpid(), 15), print('ended in peace', flush=True)))\n"
        "with signals.patience():\n pause(0)\n signals.end(15)",
        RANK="0",
    )
    assert process.stdout.read() == "ended in peace\n"
    assert process.wait(timeout=20) == 143


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_second_request_ends_it_at_once_but_an_echo_of_the_first_does_not(number):
    """DVC that dies of the same SIGTERM makes the system send it once more."""
    assert signals.ECHO == 1.0
    for echo in (60, 0):  # the second request comes before or after it, however slow the machine is
        process = waiting(f"signals.ECHO = {echo}\n" + PATIENT.format(600))
        process.send_signal(number)
        assert process.stderr.readline().startswith("Finishing this step")
        process.send_signal(number)
        if echo:
            with pytest.raises(subprocess.TimeoutExpired):
                process.wait(timeout=1.2)
            process.kill()
        process.communicate(timeout=20)
    assert process.returncode == 128 + number


def test_a_process_of_several_leaves_the_second_request_to_its_launcher():
    process = waiting(PATIENT.format(600), RANK="1")
    for _ in range(2):
        process.terminate()
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=1.2)
    process.kill()
    assert process.communicate()[1] == ""


def test_what_is_ignored_stays_ignored():
    """By nohup."""
    code = "import signal, os; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n" + WAITING + "os.kill(os.getpid(), 1)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


@pytest.mark.skipif(
    subprocess.run(["unshare", "-rpf", "true"], check=False).returncode != 0,
    reason="a process number 1 of one's own needs user namespaces, which this system does not allow",
)
def test_a_stage_runs_where_its_dvc_is_process_number_1():
    """As in a container; elsewhere that is what becomes the parent of those whose own was killed."""
    command = f"{sys.executable} -c 'import os, stages; print(os.getppid())'; exit $?"
    settings = environment() | {"DVC_STAGE": "train"}
    done = subprocess.run(["unshare", "-rpf", "sh", "-c", command], cwd=ROOT, env=settings, stdout=-1, check=True)
    assert done.stdout == b"1\n"


def test_several_processes_end_after_the_same_step_and_keep_it(tmp_path):
    launcher = start(*TWO, folder=tmp_path, sigterm=5)
    complaint = launcher.communicate(timeout=120)[1]
    assert launcher.returncode == 143
    assert "SIGTERM: the checkpoint after step 5 is kept; run the same command again to go on\n" in complaint
    assert Checkpoint(tmp_path).load()["progress"]["steps"] == 5


def test_sigterm_to_a_launcher_lets_its_processes_keep_their_step(tmp_path):
    launcher = start(*TWO, folder=tmp_path, waits=True)
    wait_for(lambda: (tmp_path / "state.pt").exists())
    launcher.terminate()
    complaint = launcher.communicate(timeout=120)[1]
    steps = Checkpoint(tmp_path).load()["progress"]["steps"]
    assert launcher.returncode == 143, complaint
    assert f"SIGTERM: the checkpoint after step {steps} is kept" in complaint


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With checkpoints each minute, which is longer than its stages take."""
    params = {"epochs": 16, "sample": {"n": 64}, "tracking": {"preview_every": 0}}
    root = make_repository(tmp_path_factory.mktemp("signals") / "repository", **params)
    call(root, "dvc", "repro", "sample")
    return root


def forget(root: Path, stage: str) -> dict[str, str]:
    """Leave nothing of a stage; returns what its outputs were."""
    straight = digests(root, stage)
    shutil.rmtree(root / ".ckpt", ignore_errors=True)
    for out in {Path(*Path(name).parts[:2]) if name.startswith(("data", "reports")) else "models" for name in straight}:
        shutil.rmtree(root / out)
    return straight


# Sends itself SIGTERM in the middle of a step, of a batch.
AMID = """
import os, runpy, signal, sys
from ddpm.network import unet
forward, calls = unet.UNet.forward, iter(range(1, 100000))
def interrupted(self, *batch):
    if next(calls) == int(sys.argv[2]):
        os.kill(os.getpid(), signal.SIGTERM)
    return forward(self, *batch)
unet.UNet.forward = interrupted
runpy.run_module(f"stages.{sys.argv[1]}", run_name="__main__")
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("stage", "call_number", "kept", "again"),
    [
        # The network is also called for the held-out loss, once in each of 5 epochs.
        ("train", 17, "the checkpoint after step 13 is kept", "Going on from the checkpoint after step 13"),
        ("sample", 17, "40 images are kept", "Going on from the checkpoint after 40 images"),
    ],
)
def test_a_stage_that_is_asked_to_end_keeps_all_that_it_has_done(repository, stage, call_number, kept, again):
    """However long ago its last checkpoint was; and goes on to the same bytes."""
    straight = forget(repository, stage)
    done = subprocess.run(
        [sys.executable, "-c", AMID, stage, str(call_number)],
        cwd=repository,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 143, done.stderr
    assert f"SIGTERM: {kept}; run the same command again to go on" in done.stderr
    assert again in call(repository, "python", "-m", f"stages.{stage}")
    assert digests(repository, stage) == straight


@pytest.mark.slow
def test_the_slurm_script_of_the_documentation_asks_to_be_run_again(repository, tmp_path):
    """With an srun that runs its command, as on a single machine, and a scontrol that notes what it is told."""
    params = repository / "params.yaml"
    params.write_text(params.read_text().replace("epochs: 16", "epochs: 4000"))
    (script,) = [block for block in blocks(Path("docs/scaling.md"), "sh") if "srun" in block]
    script = script.replace("--nproc-per-node 8", "--nproc-per-node 1").replace("source .venv/bin/activate\n", "")
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, content in {
        "srun": 'while [ "${1#--}" != "$1" ]; do shift; done; exec "$@"',
        "scontrol": f'if [ "$1" = show ]; then echo localhost; else echo "$@" >> {tmp_path}/said; fi',
    }.items():
        (tools / name).write_text(f"#!/bin/sh\n{content}\n")
        (tools / name).chmod(0o755)
    settings = environment() | {"SLURM_JOB_NODELIST": "n1", "SLURM_NNODES": "1", "SLURM_JOB_ID": "123"}
    settings |= {"PATH": f"{tools}:{settings['PATH']}", "PYTHONUNBUFFERED": "1"}
    steps = []
    for _ in range(2):
        pipe, command = subprocess.PIPE, ["bash", "-c", script]
        job = subprocess.Popen(command, cwd=repository, env=settings, stdout=pipe, stderr=pipe, text=True)
        printed = []
        for line in job.stdout:
            printed.append(line)
            if line.startswith("The training takes"):
                break
        job.terminate()
        complaint = job.communicate(timeout=60)[1]
        assert job.returncode == 143, complaint
        steps += [int(step) for step in re.findall(r"SIGTERM: the checkpoint after step (\d+) is kept", complaint)]
    assert f"Going on from the checkpoint after step {steps[0]}.\n" in printed
    assert steps[1] > steps[0] > 0
    assert (tmp_path / "said").read_text() == "requeue 123\n" * 2
