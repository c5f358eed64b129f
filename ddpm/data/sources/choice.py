"""The source that `data.source` names."""

from pathlib import Path

from ddpm.config import DataConfig
from ddpm.data.sources.flowers102 import Flowers102
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.source import Source
from ddpm.data.sources.synthetic import Synthetic
from ddpm.runtime.paths import from_main_root


def make(config: DataConfig, raw: Path) -> Source:
    """Build the source that `data.source` names, with its files in the folder `raw`."""
    match config.source:
        case "flowers102":
            return Flowers102(raw, tuple(config.splits))
        case "folder":
            return Folder(raw, from_main_root(config.path or ""))
        case "synthetic":
            return Synthetic(raw, config.synthetic.count, config.synthetic.classes, config.synthetic.seed)
