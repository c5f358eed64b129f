"""Each parameter of `data` and `fid` reaches the place that it is meant for, in the stages that fetch and pack."""

from pathlib import Path

import pytest

from ddpm.config import parse_config
from ddpm.data.sources import choice
from ddpm.data.sources.flowers102 import Flowers102
from ddpm.data.sources.folder import Folder
from ddpm.data.sources.synthetic import Synthetic
from stages import download, preprocess


@pytest.fixture
def source(params):
    """The source that these changes of `data` lead to, with what it was made of."""

    def source(**changes):
        params["data"] |= changes
        made = choice.make(parse_config(params).data, Path("raw"))
        return type(made), vars(made)

    return source


def test_the_source_is_made_of_its_parameters(source, tmp_path):
    kind, made = source(source="flowers102", splits=["test", "val"])
    assert kind is Flowers102 and ("test", "val") in made.values()
    kind, made = source(source="folder", path=str(tmp_path))
    assert kind is Folder and tmp_path in made.values()
    kind, made = source(source="synthetic", synthetic={"count": 31, "classes": 7, "seed": 5})
    assert kind is Synthetic and [value for value in made.values() if isinstance(value, int)] == [31, 7, 5]


@pytest.mark.parametrize(("on_bad_image", "skips"), [("skip", True), ("error", False)])
def test_images_are_packed_at_the_size_and_with_the_care_that_are_asked_for(params, monkeypatch, on_bad_image, skips):
    params["data"] |= {"source": "synthetic", "image_size": 32, "on_bad_image": on_bad_image}
    given = {}

    class Packed:
        def save(self, folder):
            given["folder"] = folder

    def pack(source, size, *, skip_bad):
        given.update(source=type(source), size=size, skip_bad=skip_bad)
        return Packed()

    monkeypatch.setattr(preprocess.preprocess, "pack", pack)
    preprocess.main(parse_config(params))
    assert given == {"source": Synthetic, "size": 32, "skip_bad": skips, "folder": Path("data/processed")}


@pytest.mark.parametrize("extractor", ["inception", "efficientnet_lite0"])
def test_the_weights_that_are_fetched_are_those_of_the_extractor(params, monkeypatch, tmp_path, extractor):
    local = tmp_path / "weights.pth"
    local.touch()
    params["data"] |= {"source": "synthetic"}
    params["fid"] |= {"extractor": extractor, "weights": str(local)}
    given = []
    monkeypatch.setattr(download, "check_places", lambda: None)
    monkeypatch.setattr(Synthetic, "fetch", lambda _source: None)
    monkeypatch.setattr(
        download.weights, "fetch", lambda fid, folder: given.append((fid.extractor, fid.weights, folder))
    )
    download.main(parse_config(params))
    assert given == [(extractor, str(local), Path("data/weights/fetched"))]
