"""How a process runs: errors, signals, progress, devices, several processes, checkpoints, files and their checksums.

It knows nothing of images, networks and parameters.
"""

__all__ = [
    "arrays",
    "checkpoint",
    "checksums",
    "copies",
    "devices",
    "distributed",
    "errors",
    "forecast",
    "interpreter",
    "lineage",
    "locks",
    "outputs",
    "paths",
    "pointers",
    "progress",
    "signals",
    "stage_files",
    "stage_times",
    "streams",
    "threads",
    "yaml_files",
]
