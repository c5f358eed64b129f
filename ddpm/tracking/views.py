"""How MLflow's page shows an experiment: as model training, with links to a table of scores and to means over seeds.

The page of MLflow 3.17 ignores the kind of an experiment and opens among traces, unless its address says
`workflowType=machine_learning`; and it shows no metric before somebody has chosen one. Both are in its links:
`#/experiments/1/runs?workflowType=machine_learning&viewStateShareKey=seeds`.
"""

import json
from typing import get_args

from ddpm.parameter_types import Extractor

SHOWN = ("fid", "kid", "coverage", "recall")
COLUMNS = [
    "attributes.`Created`",
    *(f"params.`{name}`" for name in ("schedule", "epochs", "seed", "sample.sampler", "sample.steps")),
    *(f"metrics.`{extractor}/{score}`" for extractor in get_args(Extractor) for score in SHOWN),
    "metrics.`seconds/train`",
]
SCORES = {"selectedColumns": COLUMNS}
KEYS = ("schedule", "epochs", "sample.sampler", "sample.steps")
SEEDS = SCORES | {
    "groupBy": {
        "aggregateFunction": "average",
        "groupByKeys": [{"mode": "param", "groupByData": name} for name in KEYS],
    }
}
# Tags of the experiment; those of the views are MLflow's own, as its button `Share` writes them.
TAGS = {
    "mlflow.experimentKind": "custom_model_development",
    "mlflow.sharedViewState.scores": json.dumps(SCORES),
    "mlflow.sharedViewState.seeds": json.dumps(SEEDS),
}
