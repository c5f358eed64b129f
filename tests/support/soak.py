"""Hundreds of tiny experiments through DVC's queue while their processes are killed at random: hours of a bad night.

    python -m tests.support.soak --folder /tmp/soak --experiments 200

Works in a repository of its own in --folder, and writes its figures to reports/benchmarks/soak.json. Ends with exit
code 1 if any finished experiment is not whole in DVC and in MLflow, or if a process or a temporary file is left.
"""

import argparse
import json
import random
import re
import statistics
import subprocess
import sys
import time
from collections import Counter
from dataclasses import dataclass, field
from functools import cache
from itertools import product
from pathlib import Path

import psutil
import yaml
from mlflow.entities import Run

from tests.support import ROOT
from tests.support.soak_faults import faults_of
from tests.support.soak_processes import command_of, files, processes_below, rss
from tests.support.tiny_repository import SERVER, call, environment, make_repository, runs

sys.path.insert(0, str(ROOT))
from benchmarks import RESULTS, machine, write
from ddpm.runtime.devices import choose_device

SAMPLERS = ["ddpm", "ddim", "dpmpp_2m", "dpmpp_2m_sde"]
SCHEDULES = ["linear", "cosine"]
# What is killed, by a piece of its command line, and how often: a worker takes its experiment with it.
VICTIMS = {"stage": ("stages.", 0.75), "experiment": ("exec-run", 0.2), "worker": ("queue-worker", 0.05)}
PAUSE = 30.0  # seconds between two looks at the queue; each costs a second or two of a core
ROUNDS = 8  # of queueing what failed again
Setting = tuple[str, int, str]  # schedule, seed, sampler


@dataclass(frozen=True)
class Experiment:
    """A line of `dvc queue status`."""

    name: str
    state: str
    setting: Setting


@dataclass(eq=False)
class Soak:
    """What was seen so far; it outlives this process, so that a long soak can be broken off and go on.

    kills: by victim.
    memory: greatest resident size of a worker at each look, MB.
    seconds: time that it took.
    """

    root: Path
    jobs: int
    kills: Counter[str] = field(default_factory=Counter)
    memory: list[float] = field(default_factory=list)
    seconds: float = 0.0

    def keep(self, file: Path) -> None:
        """Write all of it down."""
        write(file, {"kills": self.kills, "memory": self.memory, "seconds": self.seconds})

    def load(self, file: Path) -> None:
        """Go on from what `keep` has written, if it has."""
        if file.exists():
            content = json.loads(file.read_text())
            self.kills, self.memory, self.seconds = Counter(content["kills"]), content["memory"], content["seconds"]

    def queue(self, *overrides: str) -> None:
        """Queue experiments, one for each combination of the values."""
        flags = [part for override in overrides for part in ("-S", override)]
        call(self.root, "dvc", "exp", "run", "--queue", *flags)

    def status(self) -> list[Experiment]:
        """What DVC knows of the experiments."""
        lines = call(self.root, "dvc", "queue", "status").splitlines()
        found = (
            re.match(r"([0-9a-f]{7})\s+(\S+)\s.*\s(Queued|Running|Success|Failed)$", line.strip()) for line in lines
        )
        return [Experiment(match[2], match[3], self.setting(match[1])) for match in found if match]

    @cache  # noqa: B019  (one object, which lives as long as the program)
    def setting(self, commit: str) -> Setting:
        """What was queued as this commit."""
        params = yaml.safe_load(call(self.root, "git", "show", f"{commit}:params.yaml"))
        return params["schedule"], params["seed"], params["sample"]["sampler"]

    def processes(self, kind: str) -> list[psutil.Process]:
        """Processes of one kind of victim that work in this repository."""
        return [process for process in processes_below(self.root) if VICTIMS[kind][0] in command_of(process)]

    def run(self, kill_every: float, dice: random.Random) -> None:
        """Work through the queue, killing a process every `kill_every` seconds on average; 0 for never."""
        look, kill = 0.0, time.monotonic()
        while True:
            now = time.monotonic()
            if now > look:
                states, workers = Counter(one.state for one in self.status()), self.processes("worker")
                print(f"{time.strftime('%H:%M:%S')}  {dict(states)}  kills {dict(self.kills)}", flush=True)
                if not workers and not states["Queued"]:
                    return
                if states["Queued"] and len(workers) < self.jobs:
                    # Not `call`: a worker keeps the pipes of its parent, and reading them to the end would wait for it.
                    command = ["dvc", "queue", "start", "-j", str(self.jobs)]
                    subprocess.run(command, cwd=self.root, env=environment(), check=True, stdout=subprocess.DEVNULL)
                self.memory.append(max((rss(worker) for worker in workers), default=0.0))
                look = now + PAUSE
            if kill_every and now > kill:
                self.kill(dice)
                kill = now + dice.expovariate(1 / kill_every)
            time.sleep(0.5)

    def kill(self, dice: random.Random) -> None:
        """End one process without a warning."""
        kind = dice.choices(list(VICTIMS), [share for _, share in VICTIMS.values()])[0]
        if victims := self.processes(kind):
            dice.choice(victims).kill()
            self.kills[kind] += 1


def judge(soak: Soak) -> dict[str, object]:
    """Compare DVC's experiments with MLflow's runs."""
    finished = [one for one in soak.status() if one.state == "Success"]
    found = runs(soak.root)
    ended: dict[Setting, list[Run]] = {}
    for run in found:
        if run.info.status == "FINISHED":
            params = run.data.params
            # Without a sampler: a training whose experiment was killed before its samples, or is shared by others.
            setting = params["schedule"], int(params["seed"]), params.get("sample.sampler", "")
            ended.setdefault(setting, []).append(run)
    faults, known = [], Counter[str]()
    for one in finished:
        if len(of_it := ended.get(one.setting, [])) != 1:
            faults.append(f"{one.name}: {len(of_it)} finished runs in MLflow for {one.setting}")
            continue
        scores = {key.split("/")[1]: value for key, value in of_it[0].data.metrics.items() if "efficientnet" in key}
        if not (soak.root / "mlartifacts" / of_it[0].info.run_id / "artifacts/report/fid.md").exists():
            faults.append(f"{one.name}: its run in MLflow has no report")
        faults += faults_of(soak.root, one.name, scores, known)
    return {
        "finished": len({one.setting for one in finished}),
        "kills": dict(soak.kills),
        "runs_by_status": dict(Counter(run.info.status for run in found)),
        "faults": faults,
    }


def leftovers(root: Path, scratch: Path) -> dict[str, object]:
    """What should not be there once all is done."""
    return {
        "processes": [command_of(process) for process in processes_below(root)],
        "temporary_files": sorted(str(path.relative_to(scratch)) for path in scratch.rglob("*") if path.is_file())[:50],
        "temporary_workspaces": len(list((root / ".dvc/tmp/exps").glob("tmp*"))),
        "unsent_entries": files(root / ".unsent"),
        "checkpoints": len(list((root / ".ckpt").glob("*/state.pt"))),
    }


def main() -> None:
    """Read the command line; soak; write the figures."""
    parser = argparse.ArgumentParser(prog="python -m tests.support.soak", description=__doc__.splitlines()[0])
    parser.add_argument("--experiments", type=int, default=200, help="a multiple of 8 (default 200)")
    parser.add_argument("--kill-every", type=float, default=60, metavar="SECONDS", help="mean time between kills")
    parser.add_argument("--jobs", type=int, default=2, help="workers of the queue (default 2)")
    parser.add_argument("--folder", type=Path, required=True, help="where to work; what is there is gone on with")
    parser.add_argument("--out", type=Path, default=RESULTS / "soak.json", help="where the figures go")
    options = parser.parse_args()
    folder = options.folder.resolve()
    scratch = folder / "tmp"
    scratch.mkdir(parents=True, exist_ok=True)
    SERVER["TMPDIR"] = str(scratch)  # so that what the processes leave behind is seen
    soak = Soak(folder / "repository", options.jobs)
    soak.load(folder / "soak.json")
    if not soak.root.exists():
        prepare(soak.root)
    seeds = options.experiments // (len(SCHEDULES) * len(SAMPLERS))
    wanted = set(product(SCHEDULES, range(1, seeds + 1), SAMPLERS))
    try:
        work(soak, wanted, options.kill_every, folder / "soak.json")
    finally:
        soak.keep(folder / "soak.json")
    result = machine(choose_device("cpu")) | {"experiments": len(wanted)} | judge(soak) | figures(soak, scratch)
    write(options.out, result)
    print(json.dumps(result, indent=2))
    left = result["left"]
    whole = not result["faults"] and result["finished"] == result["experiments"]
    sys.exit(not (whole and not left["processes"] and not left["temporary_files"]))


def prepare(root: Path) -> None:
    """Make a tiny repository, with what all experiments share."""
    make_repository(root, restless=True, epochs=3, tracking={"preview_every": 0})
    call(root, "dvc", "repro")
    call(root, "git", "add", "-A")
    call(root, "git", "-c", "user.name=n", "-c", "user.email=e", "commit", "-qm", "what all experiments share")


def work(soak: Soak, wanted: set[Setting], kill_every: float, file: Path) -> None:
    """Queue, kill and queue again until all have finished; nothing is killed in the last round."""
    began = time.monotonic() - soak.seconds
    for round_ in range(ROUNDS):
        known = soak.status()
        missing = wanted - {one.setting for one in known if one.state == "Success"}
        under_way = ("Queued", "Running") if soak.processes("worker") else ("Queued",)
        lost = missing - {one.setting for one in known if one.state in under_way}
        print(f"round {round_ + 1}: {len(wanted - missing)} finished, {len(lost)} to be queued", flush=True)
        if not missing:
            break
        if any(one.state == "Failed" for one in known):
            call(soak.root, "dvc", "queue", "remove", "--failed")
        for schedule, sampler in product(SCHEDULES, SAMPLERS):
            if seeds := sorted(seed for s, seed, p in lost if (s, p) == (schedule, sampler)):
                soak.queue(f"schedule={schedule}", f"sample.sampler={sampler}", f"seed={','.join(map(str, seeds))}")
        soak.run(0 if round_ == ROUNDS - 1 else kill_every, random.Random(round_))
        soak.seconds = time.monotonic() - began
        soak.keep(file)


def figures(soak: Soak, scratch: Path) -> dict[str, object]:
    """What it cost, and what is left behind."""
    parts = max(1, len(soak.memory) // 4)
    return {
        "seconds": round(soak.seconds),
        "jobs": soak.jobs,
        "worker_mb": {
            "first_quarter": round(statistics.median(soak.memory[:parts])),
            "last_quarter": round(statistics.median(soak.memory[-parts:])),
            "greatest": round(max(soak.memory)),
        },
        "left": leftovers(soak.root, scratch),
    }


if __name__ == "__main__":
    main()
