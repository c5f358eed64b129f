"""params.yaml: wrong values, and values that do not go together."""

from tests.support.cases.case import Case, Place


def with_values(**values: object):
    """Parameters with __ for a dot."""

    def prepare(place: Place) -> None:
        for key, value in values.items():
            place.set(key.replace("__", "."), value)

    return prepare


def read(key: str, value: object):
    """A check: the parameter is read as this value."""

    def check(place: Place) -> bool:
        from ddpm.config import flatten, load_config

        found = flatten(load_config().model_dump())[key]
        return found == value and type(found) is type(value)

    return check


VALUES = [
    Case(
        "`schedule: bogus`",
        with_values(schedule="bogus"),
        ("params.yaml: schedule: found 'bogus', choose 'linear', 'cosine' or 'sigmoid'"),
    ),
    Case(
        "`schedule: [linear, cosine]`",
        with_values(schedule=["linear", "cosine"]),
        ("params.yaml: schedule: found ['linear', 'cosine'], choose 'linear', 'cosine' or 'sigmoid'"),
    ),
    Case(
        "`epochs: many`",
        with_values(epochs="many"),
        ("params.yaml: epochs: found 'many'; it should be a valid integer, unable to parse string as an integer"),
    ),
    Case(
        "`epochs: 1.5`",
        with_values(epochs=1.5),
        ("params.yaml: epochs: found 1.5; it should be a valid integer, got a number with a fractional part"),
    ),
    Case(
        "`epochs: 0`", with_values(epochs=0), ("params.yaml: epochs: found 0; it should be greater than or equal to 1")
    ),
    Case("`epochs: true`", with_values(epochs=True), "params.yaml: epochs: found True; it should be a number"),
    Case(
        "`epochs: 1000000000000000000000000`",
        with_values(epochs=10**24),
        ("params.yaml: epochs: found 1000000000000000000000000; it should be less than or equal to 1000000"),
    ),
    Case("`seed: -1`", with_values(seed=-1), ("params.yaml: seed: found -1; it should be greater than or equal to 0")),
    Case(
        "`train.lr: 1e-4`, which YAML reads as text",
        with_values(train__lr="1e-4"),
        "read as the number",
        0,
        check=read("train.lr", 1e-4),
    ),
    Case("`sample.n: 1e4`, likewise", with_values(sample__n="1e4"), "read as 10000", 0, check=read("sample.n", 10_000)),
    Case(
        "`train.lr: .nan`",
        with_values(train__lr=float("nan")),
        ("params.yaml: train.lr: found nan; it should be a finite number"),
    ),
    Case(
        "`train.lr: .inf`",
        with_values(train__lr=float("inf")),
        ("params.yaml: train.lr: found inf; it should be a finite number"),
    ),
    Case(
        "`train.lr: -0.1`",
        with_values(train__lr=-0.1),
        ("params.yaml: train.lr: found -0.1; it should be greater than 0"),
    ),
    Case("`train.lr: 0`", with_values(train__lr=0), ("params.yaml: train.lr: found 0; it should be greater than 0")),
    Case(
        "`train.min_snr: false`",
        with_values(train__min_snr=False),
        ("params.yaml: train.min_snr: found False; it should be a number"),
    ),
    Case(
        "`train.min_snr: -5`",
        with_values(train__min_snr=-5),
        ("params.yaml: train.min_snr: found -5; it should be greater than or equal to 0"),
    ),
    Case(
        "`train.flip: 1`",
        with_values(train__flip=1),
        ("params.yaml: train.flip: found 1; it should be a valid boolean, true or false"),
    ),
    Case(
        "`train.augment: true`",
        with_values(train__augment=True),
        ("params.yaml: train.augment: found True; it should be a number"),
    ),
    Case(
        "`train.augment: 1`, which leaves no image as it is",
        with_values(train__augment=1),
        ("params.yaml: train.augment: found 1; it should be less than 1"),
    ),
    Case(
        "`train.batch_size: 1000000000000`",
        with_values(train__batch_size=10**12),
        ("params.yaml: train.batch_size: found 1000000000000; it should be less than or equal to 100000"),
    ),
    Case(
        "`train.batch_size` of more than all images",
        with_values(train__batch_size=100_000),
        ("accepted: a batch may hold an image several times, each with noise of its own"),
        0,
    ),
    Case(
        "`sample.batch_size: all`",
        with_values(sample__batch_size="all"),
        ("params.yaml: sample.batch_size: found 'all'; it should be auto or a whole number from 1 to 100000"),
    ),
    Case(
        "`data.image_size: 48`",
        with_values(data__image_size=48),
        ("params.yaml: data.image_size: found 48, choose 8, 16, 32, 64 or 128"),
    ),
    Case(
        "`data.holdout: 1.0`",
        with_values(data__holdout=1.0),
        ("params.yaml: data.holdout: found 1.0; it should be less than or equal to 0.5"),
    ),
    Case(
        "`data.source: folder` without `data.path`",
        with_values(data__source="folder"),
        ("params.yaml: data.path: data.source is folder, so name the folder of images here"),
    ),
    Case(
        "`data.splits: [train, train]`",
        with_values(data__splits=["train", "train"]),
        ("params.yaml: data.splits: ['train', 'train'] names a split twice; name each once"),
    ),
    Case(
        "`model.channels: 100`, which its groups do not divide",
        with_values(model__channels=100),
        ("params.yaml: model.channels: found 100; it should be a multiple of 8"),
    ),
    Case(
        "`model.attention: [15]`",
        with_values(model__attention=[15]),
        ("params.yaml: model.attention: 15 is no resolution of this network; choose from [64, 32, 16, 8]"),
    ),
    Case(
        "`model.head_channels: 48`",
        with_values(model__head_channels=48),
        ("params.yaml: model.head_channels: 48 is no divisor of the 256 channels at 16 pixels; choose one"),
    ),
    Case(
        "five `model.channel_mults` for 16 pixels",
        with_values(data__image_size=16, model__channel_mults=[1] * 5, model__attention=[]),
        (
            "params.yaml: model.channel_mults: 5 resolutions do not fit images of 16 pixels; shorten the list to "
            "at most 4 entries"
        ),
    ),
    Case(
        "`model.patch: 3`",
        with_values(model__patch=3),
        ("params.yaml: model.patch: found 3, choose 1, 2 or 4"),
    ),
    Case(
        "`model.patch: true`",
        with_values(model__patch=True),
        ("params.yaml: model.patch: found True; it should be a number"),
    ),
    Case(
        "`model.attention: [64]` with `model.patch: 2`, as if it counted pixels",
        with_values(model__patch=2, model__attention=[64]),
        (
            "params.yaml: model.attention: 64 is no resolution of this network in patches of 2; choose from "
            "[32, 16, 8, 4] (attention sides are those of the grid of 32 × 32 patches)"
        ),
    ),
    Case(
        "`model.head_channels: 48` with `model.patch: 2`",
        with_values(model__patch=2, model__head_channels=48),
        ("params.yaml: model.head_channels: 48 is no divisor of the 256 channels at 16 patches; choose one"),
    ),
    Case(
        "five `model.channel_mults` for 64 pixels with `model.patch: 4`",
        with_values(model__patch=4, model__channel_mults=[1] * 5, model__attention=[]),
        (
            "params.yaml: model.channel_mults: 5 resolutions do not fit images of 64 pixels in patches of 4; shorten "
            "the list to at most 4 entries"
        ),
    ),
    Case(
        "`model.channel_mults: [1000000]`",
        with_values(model__channel_mults=[10**6], model__attention=[]),
        ("params.yaml: model.channel_mults.0: found 1000000; it should be less than or equal to 64"),
    ),
    Case(
        "`sample.n: 3`",
        with_values(sample__n=3),
        ("params.yaml: sample.n: found 3; it should be greater than or equal to 4"),
    ),
    Case(
        "`sample.steps: 2000` of 1000 time steps",
        with_values(sample__steps=2000),
        ("params.yaml: sample.steps: 2000 is more than diffusion.timesteps (1000); choose at most 1000"),
    ),
    Case(
        "`sample.variance: learned`, but none is learned",
        with_values(sample__variance="learned"),
        (
            "params.yaml: sample.variance: found 'learned', but diffusion.variance is fixed; choose small or "
            "large here, or learned there, which trains again"
        ),
    ),
    Case(
        "`train.timesteps: logsnr` with a linear schedule",
        with_values(train__timesteps="logsnr"),
        (
            "params.yaml: train.timesteps: found 'logsnr', which hardly draws the noisiest fifth of a linear schedule, "
            "where every sampler starts; choose uniform here, or cosine or sigmoid for schedule"
        ),
    ),
    Case(
        "`train.timesteps: logsnr` with a learned variance",
        with_values(schedule="cosine", diffusion__variance="learned", train__timesteps="logsnr"),
        (
            "params.yaml: train.timesteps: found 'logsnr', which hardly draws the ends of the diffusion, where a "
            "learned variance is decided; choose uniform here, or fixed for diffusion.variance"
        ),
    ),
    Case(
        "`sample.guidance: 2` without classes",
        with_values(sample__guidance=2),
        (
            "params.yaml: sample.guidance: found 2, which needs model.conditional: true and a train.label_dropout"
            " above 0; choose 1 here, or set those, which trains again"
        ),
    ),
    Case(
        "`sample.guidance: 2` without `train.label_dropout`",
        with_values(sample__guidance=2, model__conditional=True, train__label_dropout=0),
        (
            "params.yaml: sample.guidance: found 2, which needs model.conditional: true and a train.label_dropout"
            " above 0; choose 1 here, or set those, which trains again"
        ),
    ),
    Case(
        "`tracking.experiment: ' '`",
        with_values(tracking__experiment=" "),
        ("params.yaml: tracking.experiment: found ' '; string should have at least 1 character"),
    ),
    Case(
        "two faults at once",
        with_values(schedule="no", epochs=0),
        (
            "params.yaml: schedule: found 'no', choose 'linear', 'cosine' or 'sigmoid'\n"
            "params.yaml: epochs: found 0; it should be greater than or equal to 1"
        ),
    ),
]
