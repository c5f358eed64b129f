"""dvc.yaml names the modules whose code decides the outputs of a stage, and no others."""

import subprocess
import sys

import pytest
import yaml

from tests.support.tiny_repository import (
    ROOT,
)

# What only runs, checks or records the stages, and the doors of the rooms; see the head of dvc.yaml.
NO_DEPS = {
    "ddpm",
    *(
        f"ddpm.{name}"
        for name in (
            "config",
            "data",
            "diffusion",
            "evaluation",
            "model",
            "network",
            "parameter_types",
            "reporting",
            "runtime",
            "runtime.checkpoint",
            "runtime.checksums",
            "runtime.distributed",
            "runtime.errors",
            "runtime.forecast",
            "runtime.interpreter",
            "runtime.lineage",
            "runtime.paths",
            "runtime.progress",
            "runtime.signals",
            "runtime.stage_times",
            "runtime.threads",
            "tracking",
            "tracking.processes",
            "tracking.recorder",
            "tracking.served",
            "tracking.store",
            "tracking.unsent",
            "training",
            "training.divergence",
        )
    ),
}
# What goes to MLflow alone.
PREVIEWS = (
    "data.class_names",
    "data.pictures",
    "diffusion.noise",
    "diffusion.samplers",
    "model.guidance",
    "model.trained",
)
QUICK_SCORES = tuple(f"evaluation.{name}" for name in ("efficientnet", "features", "quick_scores", "scores"))
TRACKED = {f"ddpm.{name}" for name in PREVIEWS + QUICK_SCORES}


@pytest.mark.parametrize(
    "stage", ["download", "preprocess", "explore", "reference", "train", "sample", "fid", "report"]
)
def test_deps_name_the_modules_that_a_stage_imports(stage):
    code = f"import stages.{stage}, sys; print(*(m for m in sys.modules if m.split('.')[0] == 'ddpm'))"
    imported = set(subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()) - NO_DEPS
    if stage in ("train", "report"):
        imported -= TRACKED
    if stage != "report":  # which quotes it
        imported.discard("ddpm.tracking.identity")
    deps = yaml.safe_load((ROOT / "dvc.yaml").read_text())["stages"][stage]["deps"]
    named = {dep.removesuffix(".py").replace("/", ".") for dep in deps if dep.startswith("ddpm/")} - {
        "ddpm.reporting.templates"
    }
    covered = {module for module in imported if any(f"{module}.".startswith(f"{name}.") for name in named)}
    assert imported - covered == set(), "missing from deps"
    assert {name for name in named if not any(f"{m}.".startswith(f"{name}.") for m in imported)} == set(), "not used"
