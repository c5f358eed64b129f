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
