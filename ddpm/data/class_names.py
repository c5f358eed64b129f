"""Classes by their names, as people type them."""

import difflib
import unicodedata
from collections.abc import Sequence

from ddpm.runtime.errors import InputError

MAX_DIGITS = 9  # of a number; Python refuses to convert thousands


def composed(name: str) -> str:
    """The same name in composed form (NFC): macOS writes é as e and an accent, and keyboards as one letter."""
    return unicodedata.normalize("NFC", name)


def one_each(label: str | Sequence[str], count: int) -> Sequence[str]:
    """Give each of `count` images its label: the same to all, or the one in its place.

    Raises:
        InputError: there are more or fewer labels than images.
    """
    labels = [label] * count if isinstance(label, str) else label
    if len(labels) != count:
        raise InputError(f"label: found {label!r}, choose a name, or one for each of the {count} images")
    return labels


def find_class(label: str, names: Sequence[str]) -> int:
    """Find a class by its name, with composed or decomposed accents and in whatever case, or else by its number.

    A number is first of all a name, with or without zeros before it. Only where no name is a number does it count the
    classes, from 1 on, as official labels do.

    Returns:
        Its place in `names`.

    Raises:
        InputError: there is no such class, or more than one; the sentence names the nearest.
    """
    for form in (str, composed, _folded):  # the exact one first, because folders may differ in their case alone
        places = [place for place, name in enumerate(names) if form(name) == form(label)]
        if len(places) == 1:
            return places[0]
        if places:
            raise InputError(f"class: found {label!r}, which may be {' or '.join(repr(names[p]) for p in places)}")
    numbers = {place: int(name) for place, name in enumerate(names) if _is_number(name)}
    if _is_number(label):
        places = [place for place, number in numbers.items() if number == int(label)]
        if len(places) == 1:
            return places[0]
        if not numbers and 1 <= int(label) <= len(names):
            return int(label) - 1
    folded = {_folded(name): name for name in names}
    nearest = difflib.get_close_matches(_folded(label), folded, n=1)
    if nearest and not _is_number(label):
        raise InputError(f"class: found {label!r}, did you mean {folded[nearest[0]]!r}?")
    examples = ", ".join(map(repr, names[:3]))
    number = "" if numbers else f", or a number from 1 to {len(names)}"
    raise InputError(f"class: found {label!r}, choose a name such as {examples}{number}")


def number_of_one(names: Sequence[str]) -> str:
    """A number that `find_class` takes: the first name that is one, or else "1"."""
    return next((name for name in names if _is_number(name)), "1")


def _folded(name: str) -> str:
    """The form in which names that differ in case and accents' form alone are equal (Unicode 15, D145)."""
    return composed(unicodedata.normalize("NFD", name).casefold())


def _is_number(text: str) -> bool:
    return text.isdecimal() and len(text) <= MAX_DIGITS
