"""dvc.yaml names the modules whose code decides the outputs of a stage, and no others."""

import subprocess
import sys

import pytest
import yaml

from tests.support import ROOT

PIPELINE = yaml.safe_load((ROOT / "dvc.yaml").read_text(encoding="utf-8"))["stages"]

# Rooms that only run, check or record the stages, by the rule at the head of dvc.yaml; and of these what decides bytes.
EXEMPT = ("ddpm.runtime.", "ddpm.tracking.", "ddpm.config.", "ddpm.parameter_types.")
DECIDES = {"ddpm.runtime.arrays", "ddpm.runtime.devices"}

# What goes to MLflow alone: previews and quick scores.
PREVIEWS = "data.class_names data.pictures diffusion.noise diffusion.samplers model.guidance model.trained"
QUICK_SCORES = "evaluation.efficientnet evaluation.features evaluation.quick_scores evaluation.scores"
TRACKED = {f"ddpm.{name}" for name in f"{PREVIEWS} {QUICK_SCORES}".split()}
PRINTED = {"ddpm.reporting.reference_curves"}
NO_OUTPUT = {"train": TRACKED | PRINTED, "report": TRACKED}


def wanted(stage: str) -> set[str]:
    """The modules that `deps` must name: what the stage imports, less doors of rooms and what is exempt."""
    code = f"import stages.{stage}, sys; print(*(m for m in sys.modules if m.split('.')[0] == 'ddpm'))"
    imported = subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True).split()
    modules = {name for name in imported if not (ROOT / name.replace(".", "/")).is_dir()}
    decides = DECIDES | ({"ddpm.tracking.identity"} if stage == "report" else set())  # the report quotes it
    exempt = {name for name in modules if f"{name}.".startswith(EXEMPT)} - decides
    return modules - exempt - NO_OUTPUT.get(stage, set())


@pytest.mark.parametrize("stage", PIPELINE)
def test_deps_name_the_modules_that_a_stage_imports(stage):
    modules = wanted(stage)
    named = {dep.removesuffix(".py").replace("/", ".") for dep in PIPELINE[stage]["deps"] if dep.startswith("ddpm/")}
    named -= {"ddpm.reporting.templates"}
    covered = {module for module in modules if any(f"{module}.".startswith(f"{name}.") for name in named)}
    assert modules - covered == set(), "missing from deps"
    assert {name for name in named if not any(f"{m}.".startswith(f"{name}.") for m in modules)} == set(), "not used"


@pytest.mark.parametrize(
    "edited", ["diffusion/samplers", "evaluation/quick_scores", "tracking/store", "runtime/errors"]
)
def test_an_edit_of_what_decides_no_weight_trains_nothing_again(edited):
    assert not any(f"ddpm/{edited}.py".startswith(dep) for dep in PIPELINE["train"]["deps"])
