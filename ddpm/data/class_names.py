"""Classes by their names, as people type them."""

import difflib
from collections.abc import Sequence

from ddpm.runtime.errors import InputError


def find_class(label: str, names: Sequence[str]) -> int:
    """Find a class by its name, in whatever case, or else by its number from 1 on, as official labels count.

    Returns:
        Its place in `names`.

    Raises:
        InputError: there is no such class; the sentence names the nearest.
    """
    if label in names:  # first, because folders may differ in their case alone
        return names.index(label)
    places = {name.casefold(): place for place, name in enumerate(names)}
    if label.casefold() in places:
        return places[label.casefold()]
    if label.isdecimal() and 1 <= int(label) <= len(names):
        return int(label) - 1
    nearest = difflib.get_close_matches(label.casefold(), places, n=1)
    if nearest:
        raise InputError(f"class: found {label!r}, did you mean {names[places[nearest[0]]]!r}?")
    examples = ", ".join(map(repr, names[:3]))
    raise InputError(f"class: found {label!r}, choose a name such as {examples}, or a number from 1 to {len(names)}")
