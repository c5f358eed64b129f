"""Stage `preprocess`: from data/raw/fetched to the packed images of data/processed."""

from ddpm.config import Config
from ddpm.data import preprocess
from ddpm.data.sources import choice
from ddpm.runtime.paths import PROCESSED, RAW
from stages import run


def main(config: Config) -> None:
    """Write data/processed."""
    source = choice.make(config.data, RAW)
    packed = preprocess.pack(source, config.data.image_size, skip_bad=config.data.on_bad_image == "skip")
    packed.save(PROCESSED)


if __name__ == "__main__":
    run(main)
