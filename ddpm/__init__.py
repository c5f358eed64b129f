"""Denoising diffusion for small image collections: the package behind every stage of the pipeline."""

from typing import TYPE_CHECKING

from ddpm.runtime.threads import spin_briefly

if TYPE_CHECKING:
    from ddpm.model.trained import load_model as load_model

__all__ = ["load_model"]

spin_briefly()  # here, because every program of the repository and every user comes by before torch is imported


def __getattr__(name: str) -> object:
    """Import torch only when a model is asked for: half of the stages never need it, and it takes seconds."""
    if name == "load_model":
        from ddpm.model.trained import load_model

        return load_model
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
