"""YAML as DVC reads it, so that what trains is what dvc.lock records."""

import re
from pathlib import Path
from typing import Any

import yaml

from ddpm.runtime.errors import InputError

TAG = "tag:yaml.org,2002:"
# DVC reads YAML 1.2 (yaml.org/spec/1.2.2, 10.3.2), with _ between digits and 0b as extras; PyYAML reads 1.1, in which
# 010 is 8, 1:30 is 90, on is true, and 1e-4 is text.
SCALARS = (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    (
        "float",
        r"[-+]?[0-9][0-9_]*\.[0-9_]*([eE][-+]?[0-9]+)?|[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+"
        r"|[-+]?\.[0-9_]+([eE][-+][0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)",
        "-+.0123456789",
    ),
    ("int", r"[-+]?(0b[01_]+|0o?[0-7_]+|[0-9_]+|0x[0-9a-fA-F_]+)", "-+0123456789"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("merge", r"<<", "<"),
    ("timestamp", r"[0-9]{4}-[0-9]{2}-[0-9]{2}([Tt \t].*)?", "0123456789"),
)


class _Refused(yaml.YAMLError):
    """Good YAML that two readers read differently."""


class _Loader(yaml.SafeLoader):
    yaml_implicit_resolvers: dict[str, Any] = {}  # noqa: RUF012  none of PyYAML's own

    def compose_mapping_node(self, anchor: Any) -> Any:
        """Refuse a key that is given twice, of which PyYAML would take the last; DVC refuses it as well."""
        node = super().compose_mapping_node(anchor)
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if isinstance(key, yaml.ScalarNode) and key.value in lines:
                raise _Refused(f"{key.value} is given in line {lines[key.value]} and again in line {line}; keep one")
            lines[str(key.value)] = line
        return node

    def process_directives(self) -> Any:
        """Refuse a file that asks for YAML 1.1, with which 010 would be 8 again."""
        directives = super().process_directives()  # type: ignore[no-untyped-call]
        if self.yaml_version == (1, 1):
            raise _Refused("it asks for %YAML 1.1, in which 010 is 8; delete that line")
        return directives


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node).replace("_", "")
    sign, digits = (-1 if text[0] == "-" else 1), text.lstrip("+-")
    base = {"0b": 2, "0o": 8, "0x": 16}.get(digits[:2])
    return sign * (int(digits[2:], base) if base else int(digits))


def _float(loader: _Loader, node: yaml.ScalarNode) -> float:
    text = loader.construct_scalar(node).replace("_", "").lower()
    return float(text.replace(".inf", "inf").replace(".nan", "nan"))


for name, pattern, first in SCALARS:
    _Loader.add_implicit_resolver(TAG + name, re.compile(f"^(?:{pattern})$"), list(first))
_Loader.add_constructor(f"{TAG}int", _integer)
_Loader.add_constructor(f"{TAG}float", _float)


def read_yaml(path: Path) -> Any:
    """Read a file of YAML 1.2; tags that would run code are refused.

    Raises:
        InputError: there is no such file, it is no YAML, or it gives a key twice.
    """
    try:
        return _Loader(path.read_text(encoding="utf-8")).get_single_data()
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run this in the root of the repository") from None
    except _Refused as error:
        raise InputError(f"{path}: {error}") from None
    except Exception as error:  # PyYAML raises half a dozen unrelated types on texts such as `!!bool x`
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be read as YAML ({reason}); repair it, or copy it anew with git") from None
