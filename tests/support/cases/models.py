"""Model folders that are damaged, of something else, or hostile."""

import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path

from tests.support.cases.case import POINTER, Case, Place

FOLDER, WEIGHTS, CONFIG = Path("models"), Path("models/model.safetensors"), Path("models/config.json")
SAMPLE = "ddpm sample --device cpu --n 1 --steps 2 --out flowers.png"


class Evil:
    """Makes a folder when it is unpickled."""

    def __reduce__(self):
        return os.mkdir, ("evil",)


def unharmed(place: Place) -> bool:
    return not Path("evil").exists()


def model(change: Callable[[], object] = lambda: None, **values: object) -> Callable[[Place], None]:
    """A tiny model, with these values in its parameters, then changed."""

    def prepare(place: Place) -> None:
        from ddpm.config import ModelConfig
        from tests.support.networks import write_model

        tiny = {"channels": 16, "channel_mults": [1, 2], "blocks": 1, "attention": [8], "head_channels": 16}
        write_model(FOLDER, ModelConfig.model_validate(tiny | {"dropout": 0.0, "conditional": False} | values))
        change()

    return prepare


def file(path: Path, change: Callable[[bytes], bytes]) -> Callable[[Place], None]:
    return model(lambda: path.write_bytes(change(path.read_bytes())))


def config(change: Callable[[dict], object]) -> Callable[[Place], None]:
    """config.json, edited."""

    def edit() -> None:
        content = json.loads(CONFIG.read_text())
        change(content)
        CONFIG.write_text(json.dumps(content))

    return model(edit)


def flip(place: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:place] + bytes([data[place] ^ 1]) + data[place:][1:]


def complete(place: Place) -> None:
    """A network on patches, with all that an export asks for."""
    from tests.support.exported import write_model

    write_model(FOLDER, changes={"patch": 2})


def without_patch() -> None:
    content = json.loads(CONFIG.read_text())
    del content["model"]["patch"]
    CONFIG.write_text(json.dumps(content))


def terabyte(content: dict) -> None:
    content["model"] |= {"channels": 2048, "channel_mults": [64, 64], "blocks": 32}


def large(place: Place) -> None:
    """Parameters of a network that no machine can hold, and images to train it on."""
    from tests.support.cases.packed import packed

    packed()(place)
    place.params["model"] |= {"channels": 2048, "channel_mults": [64, 64, 64], "blocks": 32, "attention": []}


MODELS = [
    Case(
        "no folder",
        lambda place: None,
        (
            "models: no model can be read here ([Errno 2] No such file or directory: 'models/config.json'); train"
            " one with `dvc repro train`"
        ),
        run=SAMPLE,
    ),
    Case(
        "no weights",
        model(WEIGHTS.unlink),
        (
            "models: no model can be read here (No such file or directory: models/model.safetensors); train one "
            "with `dvc repro train`"
        ),
        run=SAMPLE,
    ),
    Case(
        "weights cut short",
        file(WEIGHTS, lambda data: data[:-100]),
        ("models: no model can be read here (…); train one with `dvc repro train`"),
        run=SAMPLE,
    ),
    Case(
        "a flipped bit in a weight",
        file(WEIGHTS, flip(-9)),
        (
            "models/model.safetensors: sha256 is …, but config.json belongs to …, so it is damaged or of another "
            "model; copy both anew, or run `dvc checkout`"
        ),
        run=SAMPLE,
    ),
    Case(
        "a flipped bit in the header",
        file(WEIGHTS, flip(9)),
        ("models: no model can be read here (…); train one with `dvc repro train`"),
        run=SAMPLE,
    ),
    Case(
        "a web page instead of weights",
        file(WEIGHTS, lambda data: b"<html>not found</html>"),
        ("models: no model can be read here (…); train one with `dvc repro train`"),
        run=SAMPLE,
    ),
    Case(
        "a pointer of git LFS instead of weights, as a clone without it leaves them",
        file(WEIGHTS, lambda data: POINTER),
        "models/model.safetensors: it is a pointer of git LFS, not the file itself, which `git lfs pull` fetches",
        run=SAMPLE,
    ),
    Case(
        "a pickle with code in it instead of weights",
        file(WEIGHTS, lambda data: pickle.dumps(Evil())),
        ("models: no model can be read here (…); train one with `dvc repro train`"),
        run=SAMPLE,
        check=unharmed,
    ),
    Case(
        "a `config.json` that is no JSON",
        file(CONFIG, lambda data: data[:-9]),
        (
            "models: no model can be read here (Unterminated string starting at: line 34 column 21 (char 501)); "
            "train one with `dvc repro train`"
        ),
        run=SAMPLE,
    ),
    Case(
        "a `config.json` that is a list",
        file(CONFIG, lambda data: b"[]"),
        (
            "models: no model can be read here (config.json is not a description of a model); train one with `dvc"
            " repro train`"
        ),
        run=SAMPLE,
    ),
    Case(
        "100,000 nested brackets",
        file(CONFIG, lambda data: b"[" * 100_000),
        ("models: no model can be read here (…); train one with `dvc repro train`"),
        run=SAMPLE,
    ),
    Case(
        "a `config.json` of a wider network",
        config(lambda c: c["model"].update(channels=32)),
        (
            "models: model.safetensors and config.json do not fit each other (…); copy both anew, or train the "
            "model again with `dvc repro train`"
        ),
        run=SAMPLE,
    ),
    Case(
        "a `config.json` of a newer version",
        config(lambda c: c["model"].update(rotary=True)),
        (
            "models/config.json: model.rotary: unknown key; the file was edited, or is of a newer version of this"
            " program"
        ),
        run=SAMPLE,
    ),
    Case(
        "a schedule of a newer version",
        config(lambda c: c.update(schedule="laplace")),
        (
            "models/config.json: schedule: found 'laplace', choose 'linear', 'cosine' or 'sigmoid'; the file was "
            "edited, or is of a newer version of this program"
        ),
        run=SAMPLE,
    ),
    Case(
        "a missing key",
        config(lambda c: c.pop("image_size")),
        ("models/config.json: image_size: missing; the file was edited, or is of a newer version of this program"),
        run=SAMPLE,
    ),
    Case(
        "images of a billion pixels",
        config(lambda c: c.update(image_size=32_768)),
        (
            "models/config.json: image_size: found 32768, choose 8, 16, 32, 64 or 128; the file was edited, or is"
            " of a newer version of this program"
        ),
        run=SAMPLE,
    ),
    Case(
        "heads that do not divide the channels",
        config(lambda c: c["model"].update(head_channels=9)),
        (
            "models/config.json: model.head_channels: 9 is no divisor of the 32 channels at 8 pixels; choose one; the "
            "file was edited, or is of a newer version of this program"
        ),
        run=SAMPLE,
    ),
    Case(
        "classes without counts",
        config(lambda c: c.update(class_counts=[])),
        (
            "models/config.json: class_counts: expected a number of images, 0 or more, for each of class_names; "
            "the file was edited, or is of a newer version of this program"
        ),
        run=SAMPLE,
    ),
    Case(
        "a network on patches, for diffusers",
        complete,
        ("model.patch: found 2, but diffusers builds no networks that work on patches; train one with model.patch: 1"),
        run="ddpm export exported",
        check=lambda place: not Path("exported").exists(),
    ),
    Case(
        "a network on patches, whose `config.json` does not mention them",
        model(without_patch, patch=2),
        (
            "models: model.safetensors and config.json do not fit each other (…); copy both anew, or train the "
            "model again with `dvc repro train`"
        ),
        run=SAMPLE,
    ),
    Case(
        "a network of a terabyte",
        config(terabyte),
        (
            "models: model.safetensors and config.json do not fit each other (…); copy both anew, or train the "
            "model again with `dvc repro train`"
        ),
        run=SAMPLE,
    ),
    Case(
        "a network of a terabyte, to be trained",
        large,
        (
            "model: 80349.5 billion parameters need 1606990 GB for training, and the CPU has … GB; lower "
            "model.channels, model.channel_mults or model.blocks"
        ),
        run="train",
    ),
]
