"""Every sampler on fake CUDA tensors: no wrong device or data type, and no step for which the host waits."""

import pytest

from ddpm.diffusion.samplers import SAMPLERS, SPACINGS
from tests.support.fake_cuda import needs_fakes
from tests.support.gpu_work import finished, sampling

pytestmark = needs_fakes


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_guided_step_of_a_sampler_waits_for_the_gpu(sampler):
    sampling(3, sampler=sampler)


@pytest.mark.parametrize("spacing", SPACINGS)
def test_no_guided_step_of_a_spacing_waits_for_the_gpu(spacing):
    sampling(2, sampler="dpmpp_2m_sde", spacing=spacing)


@pytest.mark.parametrize(
    "options", [{"sampler": "ddpm", "variance": "learned", "precision": "fp32"}, {"sampler": "ddim", "eta": 1.0}]
)
def test_an_option_of_a_sampler_makes_no_step_wait(options):
    sampling(2, **options)


def test_finished_images_come_to_the_host_once():
    assert len(finished()) == 1
