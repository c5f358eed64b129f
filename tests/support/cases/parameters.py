"""params.yaml: not there, no YAML, keys that are unknown or missing."""

import re

import yaml

from tests.support.cases.case import Case, Place
from tests.support.cases.values import read, with_values


def text(content: str | bytes):
    """The whole file."""

    def prepare(place: Place) -> None:
        place.params.clear()
        (place.root / "params.yaml").write_bytes(content.encode() if isinstance(content, str) else content)

    return prepare


def lines(key: str, *written: str):
    """The committed file with the line of a key of the top level, or of `group.key`, replaced by these lines."""

    def prepare(place: Place) -> None:
        content = yaml.safe_dump(place.params, sort_keys=False)
        *group, name = key.split(".")
        start = content.index(f"{group[0]}:\n") if group else 0
        indent = "  " * len(group)
        old = re.compile(rf"^{indent}{name}: .*$", re.MULTILINE).search(content, start)
        new = "\n".join(f"{indent}{line}" for line in written)
        text(content[: old.start()] + new + content[old.end() :])(place)

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
        "a value in the place of a group, `tracking: false`",
        with_values(tracking=False),
        ("params.yaml: tracking: found False, expected `key: value` lines below it; see the committed params.yaml"),
    ),
    # What readers of YAML 1.1 and 1.2 take for different values is read as DVC reads it, or refused.
    Case(
        "`seed: 010`, octal in YAML 1.1",
        lines("seed", "seed: 010"),
        "read as 10, as DVC records it",
        0,
        check=read("seed", 10),
    ),
    Case("`seed: 0o10`", lines("seed", "seed: 0o10"), "read as 8, as DVC records it", 0, check=read("seed", 8)),
    Case("`epochs: 1_000`", lines("epochs", "epochs: 1_000"), "read as 1000", 0, check=read("epochs", 1000)),
    Case(
        "`epochs: 1:30`, 90 in YAML 1.1",
        lines("epochs", "epochs: 1:30"),
        "params.yaml: epochs: found '1:30'; it should be a valid integer, unable to parse string as an integer",
    ),
    Case(
        "`seed: '010'`, which DVC records as it stands",
        lines("seed", "seed: '010'"),
        "params.yaml: seed: found '010'; write the number without quotes, leading zeros, _ and spaces",
    ),
    Case(
        "`train.flip: on`",
        lines("train.flip", "flip: on"),
        "params.yaml: train.flip: found 'on'; it should be a valid boolean, true or false",
    ),
    Case(
        "`train.compile: off`",
        lines("train.compile", "compile: off"),
        "params.yaml: train.compile: found 'off'; it should be auto, true or false",
    ),
    Case(
        "`data.path: off`, a folder of that name",
        lines("data.path", "path: off"),
        "read as the text, as DVC records it",
        0,
        check=read("data.path", "off"),
    ),
    Case(
        "`data.path: 2024`",
        lines("data.path", "path: 2024"),
        "params.yaml: data.path: found 2024; put it in quotes, so that it is text",
    ),
    Case(
        "`data.path: 2024-05-01`, which YAML takes for a date",
        lines("data.path", "path: 2024-05-01"),
        "params.yaml: data.path: found datetime.date(2024, 5, 1); put it in quotes, so that it is text",
    ),
    Case(
        "a key given twice",
        lines("seed", "seed: 1", "seed: 2"),
        "params.yaml: seed is given in line … and again in line …; keep one",
    ),
    Case(
        "a key given twice in a group",
        lines("train.lr", "lr: 1.0e-4", "lr: 2.0e-4"),
        "params.yaml: lr is given in line … and again in line …; keep one",
    ),
    Case(
        "`%YAML 1.1` in the first line",
        text("%YAML 1.1\n---\nseed: 010\n"),
        "params.yaml: it asks for %YAML 1.1, in which 010 is 8; delete that line",
    ),
    Case(
        "`python -m ddpm doctor --gpu 'RTX 9090'`",
        with_values(),
        (
            "--gpu: 'RTX 9090' is not in the table (RTX 3060, RTX 3080 Ti, RTX 3090, RTX 4090, RTX 5090, A100, "
            "H100 PCIe, H100, H200); give --gpu-memory, --gpu-tflops, --gpu-bandwidth of it instead"
        ),
        run="ddpm doctor --gpu 'RTX 9090'",
    ),
    Case(
        "`python -m ddpm doctor --gpu-memory 12 --gpu-tflops 68`",
        with_values(),
        "--gpu: give a name alone, or all three numbers; --gpu-bandwidth missing",
        run="ddpm doctor --gpu-memory 12 --gpu-tflops 68",
    ),
    Case(
        "`python -m ddpm doctor --gpu-memory 0 --gpu-tflops 68 --gpu-bandwidth 912`",
        with_values(),
        "--gpu-memory: found 0, expected a number above 0; see the GPU's data sheet",
        run="ddpm doctor --gpu-memory 0 --gpu-tflops 68 --gpu-bandwidth 912",
    ),
]
