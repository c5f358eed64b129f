"""Memory that does not suffice, as PyTorch and NumPy tell it; there is no GPU here, so it is only said, not full."""

from collections.abc import Callable

from tests.support.cases.case import Case, Place
from tests.support.cases.models import SAMPLE, model
from tests.support.cases.packed import packed
from tests.support.cases.scored import ready

GPU = "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 79.25 GiB of which …"


def too_much(owner: str, name: str, fits: Callable[..., bool]) -> Callable[[Place], None]:
    """A function that finds no memory for arguments that do not fit."""

    def prepare(place: Place) -> None:
        import torch

        module, kind = owner.rsplit(".", 1)
        holder = getattr(__import__(module, fromlist=[kind]), kind)
        function = getattr(holder, name)

        def limited(*arguments: object, **options: object) -> object:
            if not fits(*arguments):
                raise torch.OutOfMemoryError(GPU)
            return function(*arguments, **options)

        place.patch.setattr(holder, name, limited)

    return prepare


def training(fits: Callable[..., bool], **params: object) -> Callable[[Place], None]:
    """A short training of a tiny network on 40 images, which fits or does not."""

    def prepare(place: Place) -> None:
        import stages.train

        packed(count=40)(place)
        place.patch.setattr(stages.train, "stage_key", lambda *_: "a" * 64)  # without a pipeline
        tiny = {"channels": 16, "channel_mults": [1, 2], "blocks": 1, "attention": [], "head_channels": 8}
        place.params["model"] |= tiny
        place.set("epochs", 1)
        place.set("train.batch_size", 16)
        for key, value in params.items():
            place.set(key.replace("__", "."), value)
        too_much("ddpm.network.unet.UNet", "forward", fits)(place)

    return prepare


def sampling(batch_size: object) -> Callable[[Place], None]:
    def prepare(place: Place) -> None:
        import stages.sample

        model()(place)
        place.set("device", "cpu")
        place.set("sample.batch_size", batch_size)
        place.patch.setattr(stages.sample, "stage_key", lambda *_: "a" * 64)
        too_much("ddpm.network.unet.UNet", "forward", lambda *_: False)(place)

    return prepare


def scoring(fits_features: bool) -> Callable[[Place], None]:
    def prepare(place: Place) -> None:
        ready(fid__batch_size=6)(place)
        if fits_features:
            too_much("ddpm.evaluation.manifold.Manifold", "__init__", lambda *_: False)(place)
        else:
            too_much("ddpm.evaluation.features.EfficientNetFeatures", "forward", lambda *_: False)(place)

    return prepare


def reference(place: Place) -> None:
    packed()(place)
    place.set("fid.extractor", "efficientnet_lite0")
    too_much("ddpm.evaluation.features.EfficientNetFeatures", "forward", lambda *_: False)(place)


def nothing_fits(*_: object) -> bool:
    return False


def eight_fit(network: object, images: object, *_: object) -> bool:
    """Without gradients, twice as many do."""
    return len(images) <= (8 if network.training else 16)


HALF = (
    "train.batch_size: a step on 16 images at a time does not fit into the memory (CUDA out of memory); set "
    "train.accumulate to 2 (now 1), which makes that 8; `python -m ddpm doctor` finds what fits"
)
ONE = "a step on a single image does not fit into the memory (CUDA out of memory); set "
MEMORY = [
    Case("a training step of 16 images", training(eight_fit), HALF, code=1, run="train"),
    Case(
        "the same after it was done",
        training(eight_fit, train__accumulate=2),
        "it is trained",
        code=0,
        run="train",
    ),
    Case(
        "a training step of one image",
        training(nothing_fits, train__batch_size=4, train__accumulate=4),
        f"{ONE}train.checkpoint_activations to true",
        code=1,
        run="train",
    ),
    Case(
        "the same with `train.checkpoint_activations`",
        training(nothing_fits, train__batch_size=1, train__checkpoint_activations=True),
        f"{ONE}model.channels to 8",
        code=1,
        run="train",
    ),
    Case(
        "sampling with `sample.batch_size: 500`",
        sampling(500),
        (
            "sample.batch_size: a batch of 500 images does not fit into the memory (CUDA out of memory); set it to "
            "250, or to auto, which finds what fits"
        ),
        code=1,
        run="sample",
    ),
    Case(
        "sampling with `sample.batch_size: auto`",
        sampling("auto"),
        (
            "sample.batch_size: even a single image does not fit into the memory (CUDA out of memory); end other "
            "programs that use it, or, on a GPU, set device to cpu"
        ),
        code=1,
        run="sample",
    ),
    Case(
        "`python -m ddpm sample --batch-size 4`",
        lambda place: [model()(place), too_much("ddpm.network.unet.UNet", "forward", nothing_fits)(place)],
        (
            "--batch-size: a batch of 4 images does not fit into the memory (CUDA out of memory); set --batch-size 2, "
            "or leave it out to find what fits"
        ),
        code=1,
        run=f"{SAMPLE} --batch-size 4",
    ),
    Case(
        "features of the real images",
        reference,
        (
            "fid.batch_size: a batch of 8 images does not fit into the memory (CUDA out of memory); set it to 4, which "
            "changes no score"
        ),
        code=1,
        run="reference",
    ),
    Case(
        "features of the samples",
        scoring(fits_features=False),
        (
            "fid.batch_size: a batch of 6 images does not fit into the memory (CUDA out of memory); set it to 3, which "
            "changes no score"
        ),
        code=1,
        run="fid",
    ),
    Case(
        "the scores",
        scoring(fits_features=True),
        (
            "the comparison of 5 samples with 6 images does not fit into the memory (CUDA out of memory); end other "
            "programs that use it, or, on a GPU, set device to cpu"
        ),
        code=1,
        run="fid",
    ),
]
