"""MLflow, the record of what was run: runs, what a failing store missed, the served model.

It knows nothing of training and scores; no other room imports MLflow.
"""

__all__ = [
    "database",
    "finished",
    "identity",
    "inputs",
    "logged_models",
    "moved",
    "processes",
    "pyfunc",
    "recorder",
    "runs",
    "score_names",
    "served",
    "store",
    "unsent",
    "views",
]
