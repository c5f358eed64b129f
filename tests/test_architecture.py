"""The picture in docs/architecture.md, compared with the contract in pyproject.toml and with what the rooms import."""

import ast
import tomllib

import pytest

from tests.support import ROOT


def drawn() -> dict[str, list[str]]:
    """The rooms of the picture, from top to bottom, with the rooms that their arrows point to."""
    text = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    lines = text.split("```mermaid\nflowchart TD\n")[1].split("```")[0].splitlines()
    parts = [line.split("-->") for line in lines]
    return {
        room.strip(): [name.strip() for name in " ".join(below).split("&") if name.strip()] for room, *below in parts
    }


def imported() -> dict[str, set[str]]:
    """The rooms that each room imports, deferred imports too; the types of parameters belong to config."""
    found: dict[str, set[str]] = {}
    for path in sorted((ROOT / "ddpm").rglob("*.py")):
        nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
        names = [
            f"{node.module}.{one.name}" for node in nodes if isinstance(node, ast.ImportFrom) for one in node.names
        ]
        room, *others = (
            name.split(".")[0].removesuffix("parameter_types") or "config"
            for name in (
                path.relative_to(ROOT / "ddpm").with_suffix("").as_posix().replace("/", "."),
                *(name.removeprefix("ddpm.") for name in names if name.startswith("ddpm.")),
            )
        )
        found.setdefault(room, set()).update(set(others) - {room})
    return {room: below for room, below in found.items() if not room.startswith("__")}


def reached(room: str) -> set[str]:
    """The rooms that can be reached along the arrows."""
    below = drawn()[room]
    return set(below).union(*(reached(name) for name in below))


def test_the_rooms_are_drawn_in_the_order_of_the_contract():
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [contract["layers"] for contract in contracts if contract["type"] == "layers"]
    rooms = [room for layer in layers for room in layer.split(" | ") if room != "parameter_types"]
    assert list(drawn()) == rooms


@pytest.mark.parametrize("room", drawn())
def test_arrows_lead_to_all_that_a_room_imports(room):
    """The ground floor, runtime, carries all rooms but diffusion, and has no arrows of its own but from config."""
    imports = imported()[room]
    assert set(drawn()[room]) <= imports, "drawn, but not imported"
    assert imports - {"runtime"} <= reached(room), "imported, but not drawn"
