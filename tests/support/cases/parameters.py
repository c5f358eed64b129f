"""params.yaml: not there, no YAML, keys that are unknown or missing."""

from tests.support.cases.case import Case, Place
from tests.support.cases.values import with_values


def text(content: str | bytes):
    """The whole file."""

    def prepare(place: Place) -> None:
        place.params.clear()
        (place.root / "params.yaml").write_bytes(content.encode() if isinstance(content, str) else content)

    return prepare


def laughs(place: Place) -> None:
    """A billion items; the YAML has ten lines, which refer to one another."""
    items = ["x"]
    for _ in range(9):
        items = [items] * 10
    place.set("schedule", items)


PARAMETERS = [
    Case(
        "no file",
        lambda place: place.params.clear(),
        "params.yaml: no such file; run this in the root of the repository",
    ),
    Case(
        "an empty file",
        text(""),
        ("params.yaml: expected `key: value` lines, found nothing; copy the committed file anew with git"),
    ),
    Case(
        "a file that is no YAML",
        text("train: [1,"),
        ("params.yaml: cannot be read as YAML (…); repair it, or copy it anew with git"),
    ),
    Case(
        "a list instead of keys",
        text("- schedule\n- epochs\n"),
        ("params.yaml: expected `key: value` lines, found list; copy the committed file anew with git"),
    ),
    Case(
        "plain words",
        text("schedule linear"),
        ("params.yaml: expected `key: value` lines, found str; copy the committed file anew with git"),
    ),
    Case(
        "a picture",
        text(b"\xff\xd8\xff\xe0"),
        ("params.yaml: cannot be read as YAML (…); repair it, or copy it anew with git"),
    ),
    Case(
        "10,000 nested brackets",
        text("[" * 10_000),
        ("params.yaml: cannot be read as YAML (…); repair it, or copy it anew with git"),
    ),
    Case(
        "a number of 5,000 digits",
        text("epochs: " + "1" * 5000),
        ("params.yaml: cannot be read as YAML (…); repair it, or copy it anew with git"),
    ),
    Case(
        "a YAML tag that would run code",
        text("epochs: !!python/object/apply:os.system [echo]"),
        ("params.yaml: cannot be read as YAML (…); repair it, or copy it anew with git"),
    ),
    Case(
        "a billion values by YAML references",
        laughs,
        (
            "params.yaml: schedule: found [[...], [...], [...], [...], [...], [...], ...], choose 'linear', "
            "'cosine' or 'sigmoid'"
        ),
    ),
    Case(
        "a mistyped key, `train.learning_rte`",
        with_values(train__learning_rte=1),
        "params.yaml: train.learning_rte: unknown key; remove it",
    ),
    Case(
        "a mistyped key, `train.grad_clp`",
        with_values(train__grad_clp=1.0),
        ("params.yaml: train.grad_clp: unknown key; did you mean train.grad_clip?"),
    ),
    Case("an unknown key, `colour`", with_values(colour="red"), "params.yaml: colour: unknown key; remove it"),
    Case("a number as a key", lambda place: place.params.update({7: 1}), "params.yaml: 7: unknown key; remove it"),
    Case(
        "a missing key",
        lambda place: place.params["train"].pop("lr"),
        ("params.yaml: train.lr: missing; give it a value as in the committed params.yaml"),
    ),
    Case(
        "a missing group",
        lambda place: place.params.pop("sample"),
        ("params.yaml: sample: missing; give it a value as in the committed params.yaml"),
    ),
    Case(
        "a value in the place of a group, `tracking: off`",
        with_values(tracking=False),
        ("params.yaml: tracking: found False, expected `key: value` lines below it; see the committed params.yaml"),
    ),
]
