"""Parameters that differ from those of params.yaml."""

import json
from typing import Any

from ddpm.config import Config, parse_config

Changes = dict[str, Any]  # names such as train.lr, and their values


def changed(params: dict[str, Any], changes: Changes) -> dict[str, Any]:
    """Set values by names such as `train.lr`, and check them.

    Raises:
        InputError: they do not go together.
    """
    params = json.loads(json.dumps(params))
    for name, value in changes.items():
        *groups, last = name.split(".")
        place = params
        for group in groups:
            place = place[group]
        place[last] = value
    return parse_config(params, f"params.yaml with {listed(changes)}").model_dump(mode="json")


def changed_config(config: Config, changes: Changes) -> Config:
    """The same for a configuration that has been read; see `changed`."""
    return parse_config(changed(config.model_dump(mode="json"), changes))


def listed(changes: Changes) -> str:
    """Changes in words."""
    return ", ".join(f"{name}={value}" for name, value in changes.items()) or "params.yaml as it is"
