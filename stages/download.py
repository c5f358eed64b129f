"""Stage `download`: the images and the feature extractor's weights; the only stage that may use the network."""

from ddpm.config import Config
from ddpm.data import downloads
from ddpm.data.sources import choice
from ddpm.evaluation import weights
from ddpm.runtime.outputs import check_places
from ddpm.runtime.paths import RAW, WEIGHTS
from stages import run


def main(config: Config) -> None:
    """Write data/raw/fetched and data/weights/fetched."""
    check_places()
    source = choice.make(config.data, RAW)
    # All at once, so that without a network one sentence names every file to bring.
    downloads.ensure([*weights.remote_files(config.fid), *source.remote_files()])
    weights.fetch(config.fid, WEIGHTS)
    source.fetch()


if __name__ == "__main__":
    run(main)
