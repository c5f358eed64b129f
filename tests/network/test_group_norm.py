import pytest
import torch
import torch.nn.functional as F
from torch import nn

from ddpm.network.group_norm import ChannelsLastGroupNorm, GroupNorm, low_precision_group_norm


def made(shape, groups, memory_format):
    """A layer that has learned something, an image whose channels differ, and scales and shifts for each channel."""
    torch.manual_seed(0)
    batch, channels, *_ = shape
    norm = GroupNorm(groups, channels)
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(shape) * torch.rand(batch, channels, 1, 1) * 3 + torch.randn(batch, channels, 1, 1)
    return norm, x.contiguous(memory_format=memory_format), torch.randn(batch, 2 * channels)


def adapted(h, scale_shift):
    scale, shift = scale_shift[..., None, None].chunk(2, dim=1)
    return h * (1 + scale) + shift


def results(action, inputs, slope):
    """The output, and the gradients of the inputs by the sum of output times slope."""
    inputs = [tensor.detach().requires_grad_() for tensor in inputs]
    output = action(*inputs)
    return [output, *torch.autograd.grad((output * slope).sum(), inputs)]


@pytest.mark.parametrize("memory_format", [torch.channels_last, torch.contiguous_format])
@pytest.mark.parametrize("adaptive", [False, True])
@pytest.mark.parametrize(
    ("shape", "groups"), [((5, 32, 16, 16), 32), ((2, 48, 8, 8), 16), ((1, 8, 3, 5), 1), ((3, 16, 1, 1), 4)]
)
def test_it_equals_pytorchs_in_float64_and_so_do_its_gradients(shape, groups, adaptive, memory_format):
    norm, x, scale_shift = made(shape, groups, memory_format)
    inputs = [x, norm.weight, norm.bias, *([scale_shift] if adaptive else [])]

    def ours(x, weight, bias, *rest):
        return torch.func.functional_call(norm, {"weight": weight, "bias": bias}, (x, *rest))

    def theirs(x, weight, bias, *rest):
        h = F.group_norm(x, groups, weight, bias, norm.eps)
        return adapted(h, *rest) if rest else h

    slope = torch.randn(shape)
    found = results(ours, inputs, slope)
    expected = results(theirs, [tensor.double() for tensor in inputs], slope.double())
    for ours_, theirs_ in zip(found, expected, strict=True):
        # A group of 4 values may be nearly constant: there the inverse of its deviation multiplies every rounding.
        torch.testing.assert_close(ours_.double(), theirs_, rtol=1e-4, atol=1e-4 * theirs_.abs().max().item())


def test_its_gradient_is_that_of_small_differences():
    torch.manual_seed(0)
    x, weight, bias = torch.randn(2, 8, 3, 3).double(), torch.randn(2, 8).double(), torch.randn(2, 8).double()
    inputs = [tensor.requires_grad_() for tensor in (x, weight, bias)]
    assert torch.autograd.gradcheck(lambda *inputs: ChannelsLastGroupNorm.apply(*inputs, 4, 1e-5), inputs)


def test_it_keeps_the_layout_and_a_constant_image_gives_the_bias():
    norm, x, _ = made((2, 16, 8, 8), 4, torch.channels_last)
    assert norm(x).is_contiguous(memory_format=torch.channels_last)
    flat = torch.full_like(x, 1000.0)  # whose variance is less than nothing, by rounding
    found = norm(flat)
    assert found.isfinite().all() and (found - norm.bias[:, None, None]).abs().max() < 1


def test_an_image_is_normalised_alike_in_whatever_batch():
    norm, x, scale_shift = made((9, 32, 16, 16), 32, torch.channels_last)
    together = norm(x, scale_shift)
    for k in range(9):
        alone = x[k : k + 1].contiguous(memory_format=torch.channels_last)
        assert torch.equal(norm(alone, scale_shift[k : k + 1])[0], together[k])


def test_in_less_than_float32_it_is_pytorchs():
    norm, x, scale_shift = made((2, 16, 8, 8), 4, torch.channels_last)
    with torch.autocast("cpu", torch.bfloat16):
        found = norm(x.bfloat16(), scale_shift)
        expected = adapted(F.group_norm(x.bfloat16(), 4, norm.weight, norm.bias, norm.eps), scale_shift)
    assert torch.equal(found, expected)


@pytest.mark.parametrize(("adaptive", "error", "error_of_gradients"), [(False, 0.0025, 0.0040), (True, 0.0035, 0.0060)])
@pytest.mark.parametrize("offset", [0.0, 3.0])
def test_a_gpus_bfloat16_is_wrong_by_two_or_three_roundings(adaptive, error, error_of_gradients, offset):
    """Against float64 with the same inputs; root mean squares over root mean squares. One rounding is 0.17 %."""
    norm, x, scale_shift = made((16, 128, 16, 16), 32, torch.contiguous_format)
    x, scale_shift = (x + offset).bfloat16(), (scale_shift / 3).bfloat16()
    inputs = [x, norm.weight, norm.bias, *([scale_shift] if adaptive else [])]

    def ours(x, weight, bias, *rest):
        return low_precision_group_norm(x, 32, weight, bias, norm.eps, *rest)

    def exact(x, weight, bias, *rest):
        h = F.group_norm(x, 32, weight, bias, norm.eps)
        return adapted(h, *rest) if rest else h

    slope = torch.randn(x.shape).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        found = results(ours, inputs, slope)
    expected = results(exact, [tensor.double() for tensor in inputs], slope.double())
    assert [tensor.dtype for tensor in found[:2]] == [torch.bfloat16] * 2 and found[2].dtype == torch.float32
    errors = [rms(a.double() - b) / rms(b) for a, b in zip(found, expected, strict=True)]
    assert errors[0] < error and max(errors[1:]) < error_of_gradients


def rms(tensor):
    return tensor.square().mean().sqrt().item()
