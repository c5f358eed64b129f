"""The reader of params.yaml and dvc.yaml against that of DVC, which decides what dvc.lock records."""

import math

import pytest
from dvc.utils.serialize import YAMLFileCorruptedError, parse_yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from ddpm.runtime.errors import InputError
from ddpm.runtime.yaml_files import read_yaml

# Words that readers of YAML 1.1 and 1.2, or two programs, take for different values.
WORDS = """
010 -010 +010 08 00 0o10 -0o7 0O10 0777 0b101 0b2 0x1F 0xG 1_000 0_8 1__0 1_ _1 1_0.5 0.1_5 ._5 1e4 1e-4 1E4 +1e4 .5 -.5
+.5 5. 1.e3 .5e3 .5e+3 1e400 010.5 010e2 1_e4 1e 1:30 -1:30 1:30.5 190:20:30 yes No ON off y N True tRue ~ null nUll
2024-01-01 2024-1-1 .inf -.INF .nan nan inf 1.0.0 1,000 . 0 -0 9007199254740993
"""


def values(text: str, path) -> tuple[object, object]:
    """What this reader and that of DVC make of a text; None for a refusal."""
    path.write_text(text, encoding="utf-8")
    try:
        ours = read_yaml(path)
    except InputError:
        ours = None
    try:
        theirs = parse_yaml(text, str(path))
    except (YAMLFileCorruptedError, ValueError):
        theirs = None
    return ours, theirs


def same(one: object, other: object) -> bool:
    if isinstance(one, float) and math.isnan(one):
        return isinstance(other, float) and math.isnan(other)
    return type(one) is type(other) and one == other


@pytest.mark.parametrize("word", WORDS.split())
@pytest.mark.parametrize("text", ["a: {}", "a: [{}]", "a: {{b: {}}}", "{}: 1", "a: '{}'", 'a: "{}"'])
def test_a_word_is_what_dvc_records(word, text, tmp_path):
    ours, theirs = values(text.format(word) + "\n", tmp_path / "params.yaml")
    assert ours is not None and str(ours) == str(theirs)


@settings(
    max_examples=400,
    derandomize=True,
    database=None,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(st.text("0123456789_+-.:eExobOnfyYaN~", min_size=1, max_size=7))
@example("0b_1")
@example("+-1")
def test_any_word_is_what_dvc_records_or_refused(tmp_path, word):
    ours, theirs = values(f"a: {word}\n", tmp_path / "params.yaml")
    if ours is not None:
        assert theirs is not None and same(ours["a"], theirs["a"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: 1\nb: 2\na: 3\n", "a is given in line 1 and again in line 3; keep one"),
        ("a: 1\n'a': 1\n", "a is given in line 1 and again in line 2"),
        ("x:\n  a: 1\n  b: 2\n  a: 3\n", "a is given in line 2 and again in line 4"),
        ("x: {a: 1, a: 2}\n", "a is given in line 1 and again in line 1"),
        ("x: [{a: 1, a: 2}]\n", "again"),
        ("%YAML 1.1\n---\na: 010\n", "it asks for %YAML 1.1"),
    ],
)
def test_what_two_readers_read_differently_is_refused_with_the_line(text, words, tmp_path):
    path = tmp_path / "params.yaml"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        read_yaml(path)
    assert str(caught.value).startswith(str(path)) and "\n" not in str(caught.value)


def test_references_and_their_changes_are_read_as_by_dvc(tmp_path):
    text = "%YAML 1.2\n---\nx: &x {b: 1, c: 010}\na:\n  <<: *x\n  b: 2\nz: *x\n"
    ours, theirs = values(text, tmp_path / "params.yaml")
    assert ours == theirs == {"x": {"b": 1, "c": 10}, "a": {"b": 2, "c": 10}, "z": {"b": 1, "c": 10}}
