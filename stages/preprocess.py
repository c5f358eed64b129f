"""Stage `preprocess`: from data/raw to the packed images of data/processed, with pictures of what is in them."""

from ddpm import data_plots, preprocess, sources
from ddpm.config import Config
from ddpm.paths import PROCESSED, RAW, REPORTS
from stages import run


def main(config: Config) -> None:
    """Write data/processed and reports/data."""
    source = sources.make(config.data, RAW)
    packed = preprocess.pack(source, config.data.image_size, skip_bad=config.data.on_bad_image == "skip")
    packed.save(PROCESSED)
    data_plots.save_all(packed, REPORTS / "data")


if __name__ == "__main__":
    run(main)
