"""Mistakes that only a GPU would punish, put into the product: each is found by the test of its kind."""

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F

from ddpm.diffusion.noise import ImageNoise
from ddpm.diffusion.process import Diffusion
from ddpm.evaluation import features, scores
from ddpm.network.group_norm import GroupNorm
from ddpm.network.unet import UNet
from ddpm.training import augment, batches, step
from ddpm.training.batches import ImageSet
from ddpm.training.step import TrainStep
from tests.support.fake_backward import python_backward
from tests.support.fake_cuda import needs_fakes
from tests.support.gpu_work import configured, finished, full_step, sampling, scoring, seeing, steps
from tests.support.networks import awake

pytestmark = needs_fakes
Patch = pytest.MonkeyPatch


def after(patch: Patch, owner: object, name: str, change: Callable) -> None:
    """Let what a function returns be changed."""
    true = getattr(owner, name)
    patch.setattr(owner, name, lambda *args, **kwargs: change(true(*args, **kwargs)))


def item(patch: Patch) -> None:
    after(patch, torch.nn.utils, "clip_grad_norm_", lambda norm: torch.full_like(norm, norm.item()))


def mask(patch: Patch) -> None:
    def transform(images, labels):
        still = ~labels.any(dim=1)
        moved = images.flip(-1)
        moved[still] = images[still]
        return moved

    patch.setattr(step, "transform", transform)


def unpinned(patch: Patch) -> None:
    patch.setattr(batches, "_to_device", lambda tensor, device: tensor.to(device, non_blocking=True))


def blocking(patch: Patch) -> None:
    patch.setattr(batches, "_to_device", lambda tensor, device: tensor.pin_memory().to(device))


def index_on_the_host(patch: Patch) -> None:
    true = Diffusion.alpha_sigma
    patch.setattr(Diffusion, "alpha_sigma", lambda diffusion, t: true(diffusion, torch.ones(t.shape, dtype=t.dtype)))


def schedule_on_the_host(patch: Patch) -> None:
    true = Diffusion.__init__

    def init(diffusion, *args, **kwargs):
        true(diffusion, *args, **kwargs)
        diffusion.alphas_cumprod = torch.ones(diffusion.timesteps, dtype=torch.float64)

    patch.setattr(Diffusion, "__init__", init)


def generator_of_the_host(patch: Patch) -> None:
    generator = torch.Generator()
    patch.setattr(
        augment.torch, "randn", lambda *size, device: torch.empty(size, device=device).normal_(generator=generator)
    )


def curves_on_the_host(patch: Patch) -> None:
    after(patch, TrainStep, "__call__", lambda values: values.cpu())


def a_thread_without_a_number(patch: Patch) -> None:
    true = ImageSet.__init__

    def init(images, device, *args):
        true(images, device, *args)
        images.device = torch.device("cuda")

    patch.setattr(ImageSet, "__init__", init)


def times_from_the_host(patch: Patch) -> None:
    true = torch.full
    patch.setattr(torch, "full", lambda size, value, device=None: true(size, value).to(device))


def signal_of_the_gpu(patch: Patch) -> None:
    def wrong(diffusion: Diffusion, t: int) -> float:
        return 1.0 if t < 0 else float(diffusion.alphas_cumprod[t]) * 0.5

    patch.setattr(Diffusion, "alpha_cumprod", wrong)


def classes_on_the_host(patch: Patch) -> None:
    true = torch.tensor
    patch.setattr(torch, "tensor", lambda data, **options: true(data, dtype=options.get("dtype")))


def another_type_of_number(patch: Patch) -> None:
    after(patch, ImageNoise, "uniform", lambda numbers: numbers.float())


def pixels_of_the_gpu(patch: Patch) -> None:
    patch.setattr("ddpm.model.trained.to_uint8", lambda x: x.to(torch.uint8).numpy())


def extractor_on_the_host(patch: Patch) -> None:
    after(patch, features, "load_extractor", lambda network: network.register_buffer("mean", torch.zeros(3)) or network)
    patch.setattr(features.InceptionFeatures, "forward", lambda network, images: images[:, :, 0, 0] - network.mean)


def covariance_on_the_host(patch: Patch) -> None:
    after(patch, scores, "_root", lambda root: root.cpu())


def norm_in_float32(patch: Patch) -> None:
    def forward(norm, x, scale_shift=None):
        x = F.group_norm(x, norm.num_groups, norm.weight, norm.bias, norm.eps)
        if scale_shift is None:
            return x
        scale, shift = scale_shift[:, :, None, None].chunk(2, dim=1)
        return x * (1 + scale) + shift

    patch.setattr(GroupNorm, "forward", forward)


def full() -> None:
    needed = full_step()
    assert needed <= 14e9, f"{needed / 1e9:.1f} GB"


ON_TWO = "device"  # in PyTorch's own words
FAULTS: list[tuple[Callable[[Patch], None], Callable[[], object], str]] = [
    (item, steps, "_local_scalar_dense"),
    (mask, lambda: steps(train__augment=0.3), "by a mask"),
    (unpinned, steps, "copy to the GPU that is not pinned"),
    (blocking, steps, "copy to the GPU"),
    (index_on_the_host, steps, "by indices on the host"),
    (schedule_on_the_host, steps, ON_TWO),
    (generator_of_the_host, lambda: steps(train__augment=0.3), "a generator of the cpu for the cuda"),
    (curves_on_the_host, steps, ON_TWO),
    (a_thread_without_a_number, lambda: steps(stream=True), "A thread initializer failed"),
    (times_from_the_host, lambda: sampling(2), "copy to the GPU"),
    (signal_of_the_gpu, lambda: sampling(2), "_local_scalar_dense"),
    (classes_on_the_host, lambda: sampling(2), ON_TWO),
    (another_type_of_number, finished, "searchsorted"),
    (pixels_of_the_gpu, finished, "can't convert cuda"),
    (extractor_on_the_host, lambda: seeing("inception"), ON_TWO),
    (covariance_on_the_host, lambda: scoring(20, 8), ON_TWO),
    (norm_in_float32, full, r"22\.4 GB"),
]


@pytest.mark.parametrize(("fault", "work", "complaint"), FAULTS, ids=[fault.__name__ for fault, *_ in FAULTS])
def test_a_mistake_that_a_gpu_would_punish_is_found(monkeypatch, fault, work, complaint):
    with monkeypatch.context() as patch:
        fault(patch)
        with pytest.raises(Exception, match=complaint):
            work()


@pytest.mark.parametrize("checkpointed", [False, True])
def test_the_backward_pass_in_python_is_that_of_pytorch(checkpointed):
    """On real numbers: the same gradients, bit for bit."""
    unet = awake(UNet(configured(**{"model__channels": 16, "model__head_channels": 16}).model, 64)).train()
    unet.checkpoint_activations = checkpointed
    x, t, found = torch.randn(1, 3, 64, 64), torch.tensor([7]), []
    for replaced in (False, True):
        torch.manual_seed(0)
        unet.zero_grad(set_to_none=True)
        with pytest.MonkeyPatch.context() as patch:
            if replaced:
                with python_backward(patch):
                    unet(x, t).square().mean().backward()
            else:
                unet(x, t).square().mean().backward()
        found.append([parameter.grad for parameter in unet.parameters()])
    for theirs, ours in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
