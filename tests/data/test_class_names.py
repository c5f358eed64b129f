import unicodedata

import pytest

from ddpm.data.class_names import find_class
from ddpm.data.sources.flowers102 import CLASS_NAMES
from ddpm.runtime.errors import InputError


@pytest.mark.parametrize(
    ("label", "number"),
    [("pink primrose", 1), ("Hard-Leaved Pocket ORCHID", 2), ("sunflower", 54), ("54", 54), ("102", 102), ("1", 1)],
)
def test_flowers_are_found_by_name_or_by_their_official_number(label, number):
    assert len(set(CLASS_NAMES)) == 102
    assert find_class(label, CLASS_NAMES) == number - 1


@pytest.mark.parametrize(
    ("label", "hint"),
    [
        ("sunflwer", "did you mean 'sunflower'?"),
        ("Sunflowers", "did you mean 'sunflower'?"),
        ("passionflower", "did you mean 'passion flower'?"),
        ("bicycle wheel", "choose a name such as 'pink primrose', 'hard-leaved pocket orchid', "),
        ("0", "or a number from 1 to 102"),
        ("103", "or a number from 1 to 102"),
        ("-1", "or a number from 1 to 102"),
        ("", "or a number from 1 to 102"),
    ],
)
def test_an_unknown_name_is_refused_with_a_hint(label, hint):
    with pytest.raises(InputError) as caught:
        find_class(label, CLASS_NAMES)
    assert str(caught.value).startswith(f"class: found {label!r}, ") and hint in str(caught.value)


def test_a_folder_that_is_called_by_a_number_is_found_by_that_name():
    """As the folders of many copies of Flowers-102 are, in alphabetical order."""
    assert find_class("10", ["1", "10", "2"]) == 1


def test_names_that_differ_in_their_case_alone_are_told_apart():
    assert [find_class(name, ["Rose", "rose"]) for name in ("Rose", "rose")] == [0, 1]


def decomposed(name):
    return unicodedata.normalize("NFD", name)


@pytest.mark.parametrize("typed", [str, decomposed, str.upper, lambda name: decomposed(name.upper())])
@pytest.mark.parametrize("stored", [str, decomposed])
@pytest.mark.parametrize("name", ["église", "Blüte", "ångström", "Ελιά", "がく", "ß-Blume", "İris"])
def test_accents_are_found_in_either_form_and_case(name, stored, typed):
    names = ["rose", stored(name), "eglise"]
    if typed in (str, decomposed) or "İ" not in name:
        assert find_class(typed(name), names) == 1


def test_an_accent_is_none_too_many():
    assert find_class("eglise", ["rose", "église", "eglise"]) == 2
    with pytest.raises(InputError, match="did you mean 'église'"):
        find_class("eglise", ["rose", "église"])


@pytest.mark.parametrize(("label", "place"), [("5", 1), ("9", 3), ("007", 2), ("05", 1)])
def test_a_number_that_is_a_name_is_the_name(label, place):
    assert find_class(label, ["rose", "5", "7", "009"]) == place


@pytest.mark.parametrize("label", ["1", "2", "4", "0", "10", "9" * 5000])
def test_among_names_that_are_numbers_no_other_number_is_one(label):
    with pytest.raises(InputError) as caught:
        find_class(label, ["5", "7", "9", "rose"])
    assert str(caught.value).endswith("choose a name such as '5', '7', '9'")


def test_numbers_that_differ_in_their_zeros_alone_are_told_apart():
    names = ["1", "01", "10"]
    assert [find_class(name, names) for name in names] == [0, 1, 2]
    with pytest.raises(InputError, match="found '001', choose"):
        find_class("001", names)


def test_of_two_that_fit_none_is_taken():
    with pytest.raises(InputError, match="found 'ROSE', which may be 'Rose' or 'rose'"):
        find_class("ROSE", ["Rose", "rose", "tulip"])
