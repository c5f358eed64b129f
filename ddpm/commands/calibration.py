"""How far computed times and memory are from a real GPU's: assumed, or as `python -m benchmarks.gpu` has measured."""

import json
from dataclasses import dataclass, fields
from pathlib import Path

from ddpm.runtime.errors import InputError

FILE = Path("reports/benchmarks/gpu.json")


@dataclass(frozen=True)
class Calibration:
    """What turns counted work into time and memory.

    compiled: part of the bf16 peak that a compiled step reaches.
    eager: time of a step that is not compiled, over the computed one.
    fragments: part of the memory that PyTorch's allocator cannot hand out.
    gpu: where they were measured, with the commit; empty where they are assumed.
    """

    compiled: float = 0.6
    eager: float = 1.0
    fragments: float = 0.05
    gpu: str = ""


def calibration(file: Path = FILE) -> Calibration:
    """Read what was measured on a real GPU; assume where there is nothing.

    Raises:
        InputError: the file is not what the benchmark writes.
    """
    try:
        measured = json.loads(file.read_text(encoding="utf-8"))["calibration"]
        found = Calibration(**measured) if measured else Calibration()
        numbers = [getattr(found, field.name) for field in fields(found) if field.type is float]
        if not all(0 <= number < 100 for number in numbers) or not found.compiled * found.eager:
            raise ValueError
        return found
    except FileNotFoundError:
        return Calibration()
    except (ValueError, KeyError, TypeError):
        raise InputError(
            f"{file}: not as `python -m benchmarks.gpu` writes it; `git checkout` it, or delete it and measure again"
        ) from None
