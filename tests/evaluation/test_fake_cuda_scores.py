"""Features and scores on fake CUDA tensors: no wrong device or data type."""

import pytest

from tests.support.fake_cuda import needs_fakes
from tests.support.gpu_work import scoring, seeing

pytestmark = needs_fakes


@pytest.mark.parametrize("extractor", ["inception", "efficientnet_lite0"])
def test_features_are_found_on_the_gpu(extractor):
    seeing(extractor)


@pytest.mark.parametrize(("images", "width"), [(300, 16), (210, 400)])
def test_scores_are_calculated_on_the_gpu(images, width):
    """More images than features, and fewer."""
    scoring(images, width)
