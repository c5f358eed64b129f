"""One row of the table, and the place in which it is provoked."""

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support.cases.server import Behaviour, serve

# What git leaves of a large file where git LFS is not installed.
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:" + b"4d" * 32 + b"\nsize 12345\n"


@dataclass
class Place:
    """An empty repository, which is the working directory.

    params: the committed parameters, free to be changed; written to params.yaml unless they are cleared.
    secrets: what must not appear in the message, such as the port of a server, and what stands for it.
    """

    root: Path
    params: dict[str, Any]
    patch: pytest.MonkeyPatch
    stack: ExitStack
    secrets: dict[str, str] = field(default_factory=dict)

    def set(self, key: str, value: object) -> None:
        """Change a parameter, named with dots."""
        *groups, last = key.split(".")
        group = self.params
        for name in groups:
            group = group[name]
        group[last] = value

    def serve(self, behaviour: Behaviour, name: str = "server") -> str:
        """Start a web server that misbehaves; returns its address."""
        address = self.stack.enter_context(serve(behaviour))
        self.secrets[address] = f"http://{name}/"
        return address

    def write_params(self) -> None:
        if self.params:
            (self.root / "params.yaml").write_text(yaml.safe_dump(self.params), encoding="utf-8")


@dataclass(frozen=True)
class Case:
    """One thing that may be wrong, or only looks so.

    given: what the user gives.
    prepare: makes it so.
    message: the sentence on stderr, relative to the repository; … stands for a library's own words. Of a case that is
        no fault, what happens instead.
    code: the exit code.
    run: the stages to run, or a command line of `python -m ddpm`.
    between: happens before the last stage.
    check: what must be true at the end.
    """

    given: str
    prepare: Callable[[Place], object]
    message: str
    code: int = 2
    run: str = "load"
    between: Callable[[Place], object] = lambda place: None
    check: Callable[[Place], bool] = lambda place: True
