import pytest
import torch

from ddpm.config import ModelConfig
from ddpm.network.unet import Attention, ResidualBlock, UNet, count_parameters, timestep_embedding
from tests.support.networks import awake


@pytest.mark.parametrize("size", [8, 16, 32, 64, 128])
@pytest.mark.parametrize(("conditional", "out_channels"), [(False, 3), (True, 6)])
def test_output_has_the_size_of_the_input_and_starts_at_zero(tiny_model, size, conditional, out_channels):
    config = tiny_model.model_copy(update={"channel_mults": [1, 2, 2], "attention": [size // 4]})
    unet = UNet(config, size, num_classes=5 if conditional else None, out_channels=out_channels)
    labels = torch.tensor([0, 4]) if conditional else None
    output = unet(torch.randn(2, 3, size, size), torch.tensor([0, 999]), labels)
    assert torch.equal(output, torch.zeros(2, out_channels, size, size))


def test_output_depends_on_time_class_and_every_pixel(tiny_model):
    unet = awake(UNet(tiny_model, 16, num_classes=3))
    x, t, label = torch.randn(1, 3, 16, 16, requires_grad=True), torch.tensor([500]), torch.tensor([1])
    output = unet(x, t, label)
    assert not torch.allclose(output, unet(x, torch.tensor([501]), label))
    assert not torch.allclose(output, unet(x, t, torch.tensor([2])))
    output[0, 0, 0, 0].backward()
    assert (x.grad != 0).all()  # attention and depth reach the far corner


def test_no_class_is_one_more_class(tiny_model):
    """Which touches no other weight, so that an unconditional network starts as it always did."""
    torch.manual_seed(0)
    plain = UNet(tiny_model, 16, num_classes=3)
    torch.manual_seed(0)
    guided = UNet(tiny_model, 16, num_classes=3, none_class=True)
    assert (plain.none_class, guided.none_class) == (None, 3)
    assert len(guided.class_embedding.weight) == 4
    unconditional = UNet(tiny_model, 16)
    assert unconditional.none_class is None and unconditional.class_embedding is None


def test_every_parameter_takes_part(tiny_model):
    unet = awake(UNet(tiny_model, 16, num_classes=3))
    unet(torch.randn(2, 3, 16, 16), torch.tensor([1, 900]), torch.tensor([0, 2])).square().sum().backward()
    assert [name for name, p in unet.named_parameters() if p.grad is None or not p.grad.any()] == []


def test_dropout_acts_before_the_last_convolution_of_each_block_and_in_training_alone(tiny_model):
    """A share is zero, and the rest is enlarged, so that the mean stays (Srivastava et al. 2014, section 10)."""
    unet = UNet(tiny_model.model_copy(update={"dropout": 0.2}), 16)
    blocks = [module for module in unet.modules() if isinstance(module, ResidualBlock)]
    inputs: dict[bool, list[torch.Tensor]] = {True: [], False: []}
    for block in blocks:
        block.conv2.register_forward_pre_hook(lambda layer, args: inputs[layer.training].append(args[0]))
    x, t = torch.randn(4, 3, 16, 16), torch.tensor([3, 30, 300, 900])
    for training in (True, False):  # as the last convolutions start at zero, the blocks do not see each other's dropout
        unet.train(training)(x, t)
    assert len(inputs[True]) == len(inputs[False]) == len(blocks) == 8
    for dropped, whole in zip(inputs[True], inputs[False], strict=True):
        kept = dropped != 0
        assert kept.float().mean().item() == pytest.approx(0.8, abs=0.02)
        torch.testing.assert_close(dropped[kept], whole[kept] / 0.8)


def test_images_of_a_batch_do_not_see_each_other(tiny_model):
    unet = awake(UNet(tiny_model, 16))
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([1, 500, 999])
    assert torch.allclose(unet(x, t)[1:2], unet(x[1:2], t[1:2]), atol=1e-5)


def test_time_embedding_follows_its_formula():
    embedding = timestep_embedding(torch.tensor([7]), 6)[0]
    frequencies = 10_000.0 ** (-torch.arange(3) / 3)
    assert torch.allclose(embedding, torch.cat([torch.cos(7 * frequencies), torch.sin(7 * frequencies)]), atol=1e-6)


def test_has_no_transposed_convolution(tiny_model: ModelConfig):
    assert not [m for m in UNet(tiny_model, 16).modules() if isinstance(m, torch.nn.ConvTranspose2d)]


def test_full_recipe_has_the_size_of_its_class(config):
    parameters = count_parameters(UNet(config.model, config.data.image_size))
    assert 35e6 < parameters < 45e6  # Ho et al. 2020 report 35.7 M for their CIFAR-10 network


def test_attention_starts_as_the_identity(tiny_model):
    found = [module for module in UNet(tiny_model, 16).modules() if isinstance(module, Attention)]
    assert len(found) >= 3
    for module in found:
        x = torch.randn(2, module.out.out_channels, 8, 8)
        assert torch.equal(module(x), x)
