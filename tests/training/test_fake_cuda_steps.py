"""Every kind of training step on fake CUDA tensors: no wrong device or data type, and nothing for which a GPU waits."""

import pytest

from tests.support.fake_cuda import fake_cuda, needs_fakes
from tests.support.gpu_work import built, full_step, measuring, steps

pytestmark = needs_fakes
KINDS = {
    "bf16": {},
    "fp32": {"train__precision": "fp32"},
    "classes": {"model__conditional": True},
    "a learned variance": {"diffusion__variance": "learned"},
    "v": {"diffusion__target": "v"},
    "x0": {"diffusion__target": "x0"},
    "min-SNR": {"train__min_snr": 5.0},
    "augmentation": {"train__augment": 0.3},
    "accumulation": {"train__accumulate": 3},
    "checkpointed activations": {"train__checkpoint_activations": True},
    "time steps around log-SNR 0": {"schedule": "cosine", "train__timesteps": "logsnr"},
    "a falling learning rate and an average of relative length": {"train__lr_decay": 0.5, "train__ema_length": 0.1},
    "patches": {"model__patch": 2},
    "patches in fp32": {"model__patch": 2, "train__precision": "fp32"},
    "patches and checkpointed activations": {"model__patch": 2, "train__checkpoint_activations": True},
    "everything at once": {
        "model__conditional": True,
        "diffusion__variance": "learned",
        "diffusion__target": "v",
        "train__min_snr": 5.0,
        "train__augment": 0.3,
        "train__accumulate": 2,
        "train__checkpoint_activations": True,
        "model__patch": 2,
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_no_step_waits_for_the_gpu(kind):
    steps(**KINDS[kind])


def test_no_step_on_images_from_the_disk_waits_for_the_gpu():
    steps(stream=True, train__augment=0.3)


def test_no_step_after_a_restored_state_waits_for_the_gpu():
    steps(restore=True, model__conditional=True)


def test_the_tests_see_what_waits():
    """The loop reads its curves and looks for faults now and then, for which a GPU has to be waited."""
    with fake_cuda() as watch:
        training = built()
        training.train_step(0)
        watch.waits.clear()
        training.progress.sums.tolist()
        training._watch.fault()
    assert len(watch.waits) >= 2


def test_a_held_out_loss_reads_a_number_per_batch():
    waits = [wait for wait in measuring(model__conditional=True).waits if wait.startswith("_local_scalar_dense")]
    assert waits and all("training/" in wait for wait in waits)


@pytest.mark.parametrize("patch", [1, 2])
def test_held_out_loss_and_noise_levels_of_a_learned_variance_run(patch):
    measuring(diffusion__variance="learned", model__patch=patch)


def test_a_step_of_the_full_recipe_in_bf16_fits_into_14_gb_without_compiling():
    assert full_step() <= 14e9


def test_checkpointed_activations_need_less_than_half():
    assert full_step(1, train__checkpoint_activations=True) < 6e9
