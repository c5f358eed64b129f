"""The check that comes before all imports: is this the Python into which the packages were installed?"""

import importlib.util
import sys


def require(*packages: str) -> None:
    """End with a sentence instead of a traceback when a package is missing; exit code 2."""
    # DVC, for one, runs whichever `python` comes first on the PATH.
    if package := lacking(*packages):
        print(f"error: {sys.executable} lacks {package}; run `source .venv/bin/activate` first", file=sys.stderr)
        sys.exit(2)


def lacking(*packages: str) -> str | None:
    """Name the first of these packages that this Python lacks, if any."""
    return next((package for package in packages if importlib.util.find_spec(package) is None), None)
