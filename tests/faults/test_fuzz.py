"""Thousands of damaged inputs: each is read, or refused in a sentence; nothing else is raised, hangs or escapes.

The same few hundred examples every time; `FUZZ_EXAMPLES=3000 python -m pytest tests/faults/test_fuzz.py` tries as many
new ones for each of the readers.
"""

import copy
import gzip
import hashlib
import io
import os
import tarfile
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from PIL import Image
from scipy.io import savemat

from ddpm.config import Config, flatten, load_config, parse_config
from ddpm.data.preprocess import BadImageError, prepare
from ddpm.data.sources.flowers102 import Flowers102
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.source import Item
from ddpm.runtime.errors import InputError

EXAMPLES = os.environ.get("FUZZ_EXAMPLES")
fuzzed = settings(
    max_examples=int(EXAMPLES or 80),
    derandomize=not EXAMPLES,
    deadline=timedelta(seconds=10),
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)

PARAMS = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
TEXT = Path("params.yaml").read_bytes()
KEYS = sorted(flatten(PARAMS))

scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=20),
    st.sampled_from(["1e-4", "1e999", "-0", "~x/y", "../..", "\0", "linear", "auto", 10**400, -(2**63)]),
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=3),
    max_leaves=6,
)
# Where, what to do there, and with which bytes.
edits = st.lists(
    st.tuples(
        st.integers(0, 1 << 16), st.sampled_from(["set", "insert", "delete", "cut", "repeat"]), st.binary(max_size=8)
    ),
    min_size=1,
    max_size=6,
)


def edited(content: bytes, changes: list[tuple[int, str, bytes]]) -> bytes:
    for place, what, data in changes:
        at = place % (len(content) + 1)
        match what:
            case "set":
                content = content[:at] + data + content[at + len(data) :]
            case "insert":
                content = content[:at] + data + content[at:]
            case "delete":
                content = content[:at] + content[at + 1 + place % 7 :]
            case "cut":
                content = content[:at]
            case "repeat":
                content = content[:at] + content[at : at + 64] * 3 + content[at:]
    return content


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """A workspace in a folder of its own, where nothing else may appear."""
    return tmp_path_factory.mktemp("fuzz") / "workspace"


def tree(root: Path) -> list[str]:
    return sorted(str(path) for path in root.parent.rglob("*"))


def is_a_refusal(error: InputError) -> bool:
    lines = str(error).splitlines()
    return bool(lines) and all(line.startswith("params.yaml: ") for line in lines) and max(map(len, lines)) < 1000


@fuzzed
@given(
    st.dictionaries(st.sampled_from(KEYS), values, min_size=1, max_size=4),
    st.dictionaries(st.text(), values, max_size=2),
)
def test_any_values(changes, extra):
    params = copy.deepcopy(PARAMS) | extra
    for key, value in changes.items():
        *groups, last = key.split(".")
        group = params
        for name in groups:
            group = group[name] if isinstance(group[name], dict) else group
        group[last] = value
    try:
        assert isinstance(parse_config(params), Config)
    except InputError as error:
        assert is_a_refusal(error)


@fuzzed
@given(st.binary(max_size=60) | edits.map(lambda changes: edited(TEXT, changes)))
@example(b"[" * 3000)
@example(b"schedule: !!bool x")
@example(b"a: &a [*a]")
@example(b"epochs: 2001-99-99")
def test_any_text(work, content):
    work.mkdir(exist_ok=True)
    path = work / "params.yaml"
    path.write_bytes(content)
    try:
        load_config(path)
    except InputError as error:
        assert str(error).startswith(str(path))


def encoded(kind: str, mode: str, **options: object) -> bytes:
    stream = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(stream, kind, **options)
    return stream.getvalue()


EXIF = Image.Exif()
EXIF[0x0112] = 6
PICTURES = [
    encoded("JPEG", "RGB", exif=EXIF),
    encoded("JPEG", "CMYK"),
    encoded("JPEG", "L", progressive=True),
    encoded("PNG", "RGBA"),
    encoded("PNG", "P", transparency=3),
    encoded("PNG", "I;16"),
    encoded("GIF", "P"),
    encoded("BMP", "RGB"),
    encoded("TIFF", "RGB"),
    encoded("TIFF", "RGB", compression="tiff_lzw"),
    encoded("WEBP", "RGB"),
]


@pytest.mark.filterwarnings("ignore")  # of Pillow, about metadata; `preprocess` does likewise
@fuzzed
@given(st.sampled_from(PICTURES), edits)
def test_any_image(work, picture, changes):
    folder = work / "photos"
    folder.mkdir(parents=True, exist_ok=True)
    content = edited(picture, changes)
    (folder / "x.jpg").write_bytes(content)
    before = tree(work)
    item = Item("x.jpg", 0, hashlib.sha256(content).hexdigest())
    try:
        image = prepare(Folder(work / "raw", folder), 8, item)
        assert image.pixels.shape == (8, 8, 3) and image.pixels.dtype == np.uint8
        assert image.width > 0 and image.height > 0
    except BadImageError as error:
        again = None
        try:
            prepare(Folder(work / "raw", folder), 8, item)
        except BadImageError as other:
            again = str(other)
        assert str(error) == again and "\n" not in str(error) and "0x" not in str(error)
    assert tree(work) == before


def small_archive() -> bytes:
    stream = io.BytesIO()
    with tarfile.open(fileobj=stream, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name in ("jpg", "jpg/image_00001.jpg", "é" * 120 + "/image_00002.jpg", "../image_00003.jpg"):
            info = tarfile.TarInfo(name)
            info.type = tarfile.DIRTYPE if name == "jpg" else tarfile.REGTYPE
            info.size = 0 if name == "jpg" else 300
            archive.addfile(info, io.BytesIO(bytes(info.size)))
    return stream.getvalue()


def small_lists() -> tuple[bytes, bytes]:
    labels, splits = io.BytesIO(), io.BytesIO()
    savemat(labels, {"labels": np.array([[5, 6, 102]], np.uint8)})
    savemat(splits, {"trnid": np.array([[1, 2, 3]], np.uint16)}, do_compression=True)
    return labels.getvalue(), splits.getvalue()


ARCHIVE, (LABELS, SPLITS) = small_archive(), small_lists()


def read_archive(work: Path, archive: bytes, labels: bytes = LABELS, splits: bytes = SPLITS) -> None:
    raw = work / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    for name, content in (("102flowers.tgz", archive), ("imagelabels.mat", labels), ("setid.mat", splits)):
        (raw / name).write_bytes(content)
    before = tree(work)
    try:
        items = list(Flowers102(raw, ("train",)).items())
        assert {item.id for item in items} <= {f"image_{number:05d}" for number in range(103)}
        assert all(0 <= item.label < 102 for item in items)
    except InputError as error:
        assert "\n" not in str(error) and "dvc repro --force download" in str(error)
    assert tree(work) == before


@fuzzed
@given(edits, edits, st.booleans())
def test_any_archive(work, inside, outside, packed_wrong):
    content = gzip.compress(edited(ARCHIVE, inside), compresslevel=1, mtime=0)
    read_archive(work, edited(content, outside) if packed_wrong else content)


@fuzzed
@given(edits, st.booleans())
def test_any_lists(work, changes, first):
    archive = gzip.compress(ARCHIVE, compresslevel=1, mtime=0)
    if first:
        read_archive(work, archive, labels=edited(LABELS, changes))
    else:
        read_archive(work, archive, splits=edited(SPLITS, changes))
