"""`python -m ddpm use`: write a named recipe, or a folder of photographs, into params.yaml, and keep its comments."""

import argparse
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ruamel.yaml import YAML

HELP = "write a recipe of recipes/ into params.yaml, or name your own photographs there; without both: list the recipes"
EPILOG = "`python -m ddpm use full` goes back to the committed recipe; what no recipe names stays as you have set it"
RECIPES = Path("recipes")
FULL = "full"  # what params.yaml is committed with: the values of all that any recipe changes


def add_parser(commands: Any) -> None:
    """Add the command to those of `python -m ddpm`."""
    parser = commands.add_parser("use", help=HELP, description=HELP, epilog=EPILOG)
    parser.set_defaults(action=use)
    parser.add_argument("name", nargs="?", metavar="NAME", help="of the recipe")
    parser.add_argument("--photos", metavar="DIR", help="a folder of your own photographs, whatever its name")


def use(arguments: argparse.Namespace) -> None:
    """Write what was asked for into params.yaml, and print what has changed.

    Raises:
        InputError: there is no such recipe or folder, or params.yaml cannot be used.
    """
    from ddpm.config import flatten, load_config

    wanted: dict[str, Any] = {}
    if arguments.name:
        wanted = flatten(recipe(FULL)) | flatten(recipe(arguments.name))
    if arguments.photos:
        folder = _folder(arguments.photos)
        wanted |= {"data.source": "folder", "data.path": folder}
        images, found = _survey(folder)
    if not wanted:
        print("\n".join(f"{name:10} {_headline(name)}" for name in names()))
        return
    changes = write(Path("params.yaml"), wanted)
    lines = [f"{key}: {yaml_word(old)} → {yaml_word(new)}" for key, (old, new) in changes.items()]
    print("\n".join(lines) or "params.yaml: as it was")
    if arguments.photos:
        from ddpm.commands.photographs import forecast

        print("\n".join(("", *found)), flush=True)  # before the seconds that a forecast takes
        print(forecast(load_config(), images))


def names() -> list[str]:
    """The recipes that there are."""
    return sorted(file.stem for file in RECIPES.glob("*.yaml"))


def recipe(name: str) -> dict[str, Any]:
    """What a recipe changes, as params.yaml is nested and as its numbers are written.

    Raises:
        InputError: there is no such recipe, or it is no YAML that names parameters.
    """
    from ddpm.runtime.errors import InputError
    from ddpm.runtime.yaml_files import read_yaml

    if name not in names():
        raise InputError(f"{RECIPES}: holds no recipe {name!r}; choose {', '.join(names())}")
    file = RECIPES / f"{name}.yaml"
    if not isinstance(read_yaml(file), dict):
        raise InputError(f"{file}: names no parameters; write those that it changes, as params.yaml has them")
    return dict(_style().load(file.read_text(encoding="utf-8")))


def write(file: Path, wanted: dict[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Set dotted keys in a parameter file, all or none, and leave the rest of it as it is, comments and all.

    Returns:
        Old and new value of each key that has changed.

    Raises:
        InputError: the file cannot be used, before or with these values.
    """
    from ddpm.config import flatten, load_config, parse_config
    from ddpm.runtime.errors import InputError
    from ddpm.runtime.stage_files import write_whole

    known = flatten(load_config(file).model_dump(mode="json"))  # a file of an earlier version lacks some
    style = _style()
    params, changes = style.load(file.read_text(encoding="utf-8")), {}
    for key, value in wanted.items():
        *groups, last = key.split(".")
        place = params
        for group in groups:
            place = place.setdefault(group, {})
            if not isinstance(place, dict):
                raise InputError(f"{file} with these changes: {key}: unknown key, because {group} is no group")
        if (old := known.get(key)) != value:  # an unknown key gets its sentence from `parse_config`
            changes[key] = (old, value)
            place[last] = value
    text = io.StringIO()
    style.dump(params, text)
    parse_config(params, f"{file} with these changes")
    if changes:
        write_whole(file, text.getvalue())
    return changes


def _style() -> "YAML":
    """Reads and writes YAML with its comments, order, quotes and numbers as they stand."""
    from ruamel.yaml import YAML

    style = YAML()
    style.width, style.preserve_quotes = 10**6, True
    style.representer.add_representer(
        type(None), lambda representer, _none: representer.represent_scalar("tag:yaml.org,2002:null", "null")
    )
    return style


def _folder(name: str) -> str:
    """A folder, from here where it lies below.

    Raises:
        InputError: it is none.
    """
    from ddpm.runtime.errors import InputError

    if not (folder := Path(name).expanduser()).is_dir():
        raise InputError(f"--photos: {name} is no folder; name the one that holds the photographs")
    folder = folder.resolve()
    here = Path.cwd().resolve()
    return str(folder.relative_to(here) if folder.is_relative_to(here) else folder)


def _survey(folder: str) -> tuple[int, list[str]]:
    from ddpm.commands.photographs import survey

    return survey(Path(folder))


def yaml_word(value: Any) -> str:
    """A value as YAML has it."""
    return json.dumps(value, ensure_ascii=False).strip('"')


def _headline(name: str) -> str:
    """The first line of a recipe's comment."""
    lines = (RECIPES / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    return next(iter(lines), "").lstrip("# ")
