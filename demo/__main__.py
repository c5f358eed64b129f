"""Run all stages on synthetic flowers in .demo/, a copy of this repository, so that nothing here changes."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

from ddpm.runtime.streams import withstand

ROOT = Path(__file__).resolve().parent.parent
COPY = ROOT / ".demo"
CODE = ("ddpm", "stages")
ITS_OWN = ("dvc.lock", "params.yaml", "reports/fid.json")  # which may be committed here, of another pipeline


def main() -> None:
    """Copy the code, reproduce the pipeline there, and print where to look."""
    withstand(lambda: None)
    copy_code()
    code = subprocess.run(["dvc", "repro"], cwd=COPY, env=environment(), check=False).returncode
    if code:
        sys.exit(code)  # the stage has printed why
    scores = json.loads((COPY / "reports" / "fid.json").read_text(encoding="utf-8"))["efficientnet_lite0"]
    print(
        f"\nFID {scores['fid_same_n']:.1f}, where real images in the place of the samples score "
        f"{scores['fid_floor']:.1f} (efficientnet_lite0 features, not comparable with published FIDs).\n"
        "In these minutes a network learns colours and layout, hardly a petal. All scores are in the report."
    )
    print(f"Report:  {COPY / 'reports' / 'fid.html'}")
    print(f"Data:    {COPY / 'reports' / 'explore.html'}")
    print(f"Samples: {COPY / 'reports' / 'samples' / 'grid.png'}")
    print("Curves:  `source .venv/bin/activate && mlflow ui`, experiment flowers-ddpm-demo")
    sample_flowers(COPY / "flowers.png")
    print("All of it is in .demo/, which git ignores; delete that folder to start afresh.")


def sample_flowers(out: Path) -> None:
    """Sample from the shipped model, to show beside the demo's samples what longer training on photographs gives."""
    command = [sys.executable, "-m", "ddpm", "sample", "--model", "shipped", "--device", "cpu", "--n", "64"]
    if subprocess.run([*command, "--out", out], cwd=COPY, env=environment(), check=False).returncode == 0:
        print(f"Flowers: {out}, by the model in shipped/, which has learned from photographs")


def copy_code() -> None:
    """Bring .demo/ up to date with the working tree, keeping the results of an earlier demo."""
    try:
        # Of what is not in git yet the code alone, and not what else somebody keeps here.
        listed = files("--cached") + files("--others", "--exclude-standard", "--", *CODE)
    except (FileNotFoundError, subprocess.CalledProcessError):
        print(f"error: {ROOT}: git lists no files here, which the demo copies; clone it with git", file=sys.stderr)
        sys.exit(2)
    for package in CODE:  # a module that was deleted here must not live on there
        shutil.rmtree(COPY / package, ignore_errors=True)
    for name in listed:
        if (ROOT / name).is_file() and name not in ITS_OWN:
            (COPY / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, COPY / name)
    shutil.copy2(ROOT / "demo" / "params.yaml", COPY / "params.yaml")
    # Git ignores this folder, and DVC refuses to work on what git ignores.
    (COPY / ".dvc" / "config.local").write_text("[core]\n    no_scm = true\n", encoding="utf-8")


def files(*options: str) -> list[str]:
    """What `git ls-files` lists of the working tree."""
    command = ["git", "ls-files", "-z", *options]
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    return done.stdout.split("\0")[:-1]


def environment() -> dict[str, str]:
    """This environment, with this Python first on the path and the tracking store of the repository."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DVC_")}
    return {
        "MLFLOW_TRACKING_URI": f"sqlite:///{ROOT / 'mlflow.db'}",
        **kept,
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
