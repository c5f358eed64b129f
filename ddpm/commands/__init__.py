"""The commands of `python -m ddpm`, a module each; `add_parser` registers one without importing its work.

They know nothing of the stages, and no other room knows of them.
"""

__all__ = [
    "calibration",
    "checks",
    "compare",
    "doctor",
    "estimate",
    "export",
    "foresee",
    "gpu_forecast",
    "gpus",
    "photographs",
    "sample",
    "sync",
    "use",
]
