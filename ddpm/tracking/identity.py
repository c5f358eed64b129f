"""By which parameters and tags a run is known: that of a training, and that of the scores of its samples."""

from ddpm.config import Config, flatten

TRAINING = {"schedule", "epochs", "seed", "data", "model", "diffusion", "train"}
SCORING = {"sample", "fid"}
# What distinguishes two sets of scores of one training; batch sizes and the place of a file do not.
SCORE_IDENTITY = (
    *(f"sample.{name}" for name in ("n", "sampler", "steps", "spacing", "eta", "variance", "guidance", "precision")),
    "fid.extractor",
    "fid.reference",
)
KEY = "pipeline.key"  # tag: which training


def params_of(config: Config, groups: set[str]) -> dict[str, str]:
    """The parameters of these groups as MLflow has them: dotted names, values in words."""
    return {name: str(value) for name, value in flatten(config.model_dump(include=groups)).items()}


def run_filter(config: Config, train_key: str) -> str:
    """The search, in MLflow's language, that finds the runs of a training with these scores."""
    scoring = params_of(config, SCORING)
    conditions = [f"tags.\"{KEY}\" = '{train_key}'"]
    return " and ".join(conditions + [f"params.\"{name}\" = '{scoring[name]}'" for name in SCORE_IDENTITY])
