"""Programs whose output nobody reads, or whose terminal knows few letters, as a shell starts them."""

import os
import pty
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT

COMMAND = """
from ddpm.runtime.errors import guarded

def work():
    for number in range(100_000):
        print("epoch", number)

guarded(work)
"""
STAGE = """
import sys
from pathlib import Path
from ddpm.runtime.errors import guarded
from ddpm.runtime.streams import withstand

def work():
    for number in range(20_000):
        print("epoch", number)
        print("step", number, file=sys.stderr, flush=True)
    Path(sys.argv[1]).write_text("done")

withstand(lambda: None)
guarded(work)
"""
LETTERS = "from ddpm.runtime.errors import guarded; guarded(lambda: print('64×64 · église ▁'))"
FILES = """
import sys
from ddpm.runtime.errors import guarded

def work():
    with open(sys.argv[1], "w") as file:
        print("words")
        print("words", file=sys.stderr, flush=True)
        file.write(str(file.fileno()))

guarded(work)
"""


def shell(line: str, *arguments: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of bash, in which $PYTHON is this Python."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONIOENCODING"}
    variables = kept | {"PYTHON": sys.executable, "PYTHONPATH": str(ROOT)} | environment
    command = ["bash", "-c", line, "bash", *map(str, arguments)]
    return subprocess.run(
        command, cwd=ROOT, env=variables, capture_output=True, text=True, errors="replace", check=False
    )


@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_command_ends_without_a_word_when_nobody_reads_it(unbuffered):
    done = shell('"$PYTHON" -c "$1" | head -3; echo ${PIPESTATUS[0]}', COMMAND, PYTHONUNBUFFERED=unbuffered)
    assert (done.stdout, done.stderr) == ("epoch 0\nepoch 1\nepoch 2\n141\n", "")


def test_the_help_of_the_commands_ends_without_a_word_too():
    done = shell('("$PYTHON" -m ddpm --help; echo $? >&2) | true')
    assert done.stderr in ("0\n", "141\n")


def test_a_stage_does_its_work_when_nobody_reads_it(tmp_path):
    done = shell('"$PYTHON" -c "$1" "$2" 2>&1 | head -3 >&2; echo ${PIPESTATUS[0]}', STAGE, tmp_path / "file")
    assert done.stdout == "0\n" and "Error" not in done.stderr
    assert (tmp_path / "file").read_text() == "done"


def test_a_stage_does_its_work_when_its_terminal_is_closed(tmp_path):
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", STAGE, tmp_path / "file"]
    stage = subprocess.Popen(command, cwd=ROOT, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True)
    os.close(theirs)
    os.read(ours, 10)
    os.close(ours)
    assert stage.wait(timeout=60) == 0 and (tmp_path / "file").read_text() == "done"


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp437:strict"])
def test_letters_that_a_terminal_does_not_know_are_printed_as_numbers(encoding):
    done = shell('"$PYTHON" -c "$1" | cat', LETTERS, PYTHONIOENCODING=encoding)
    assert done.stderr == "" and "64" in done.stdout and r"\u2581" in done.stdout.replace("▁", r"\u2581")


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_what_is_printed_into_a_closed_output_goes_into_no_file(tmp_path: Path, closed):
    done = shell(f'"$PYTHON" -c "$1" "$2" {closed}; echo $?', FILES, tmp_path / "file")
    assert done.stdout.endswith("0\n")
    assert int((tmp_path / "file").read_text()) > 2
