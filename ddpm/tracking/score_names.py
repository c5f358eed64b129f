"""Scores by the names that they have in MLflow."""

from typing import Any


def flat_scores(scores: dict[str, Any]) -> dict[str, float]:
    """Names and numbers for MLflow, grouped by the extractor: inception/fid, inception/fid_low and so on."""
    flat = {}
    for name, score in scores["scores"].items():
        for part, value in (score or {}).items():
            flat[name if part == "value" else f"{name}_{part}"] = value
    for name, score in (scores["floor"] or {"scores": {}})["scores"].items():
        flat |= {f"{name}_same_n": score["model"], f"{name}_floor": score["real"]}
    return {f"{scores['extractor']}/{name}": value for name, value in flat.items()}
