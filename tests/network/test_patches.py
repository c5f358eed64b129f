"""The network on a grid of patches: positions, resolutions, gradients, and what its model folder says."""

import json

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import ddpm
from ddpm.model.model_file import read_model, save_model
from ddpm.network.patches import Pixels
from ddpm.network.unet import Attention, UNet, UNetBlock
from ddpm.runtime.errors import InputError
from tests.support.networks import awake, write_model
from tests.support.trainings import disks

PATCHES = pytest.mark.parametrize("patch", [2, 4])


def changed(tiny_model, patch, **values):
    """The tiny model on patches, with attention at the bottom of images of 8·p pixels."""
    return tiny_model.model_copy(update={"patch": patch, "attention": [4], **values})


def gradients(unet, x, **inputs):
    """Of a loss that weighs every number of the output differently."""
    unet.zero_grad()
    torch.manual_seed(3)  # of the dropout
    output = unet(x, torch.tensor([3, 700]), **inputs)
    weights = torch.linspace(-1, 1, output.numel()).view(output.shape)
    (output * weights).sum().backward()
    return {name: parameter.grad.clone() for name, parameter in unet.named_parameters()}


@PATCHES
def test_classes_augmentations_and_a_learned_variance_go_with_patches(tiny_model, patch):
    unet = UNet(changed(tiny_model, patch), 8 * patch, 3, 6, none_class=True, augment_labels=5)
    x, t = torch.randn(2, 3, 8 * patch, 8 * patch), torch.tensor([0, 999])
    labels, augmentations = torch.tensor([0, 3]), torch.randn(2, 5)
    assert torch.equal(unet(x, t, labels, augmentations), torch.zeros(2, 6, 8 * patch, 8 * patch))  # it starts there
    output = awake(unet)(x, t, labels, augmentations)
    assert output.shape == (2, 6, 8 * patch, 8 * patch) and output.std() > 0.01
    for other in (
        unet(x, t + 1, labels, augmentations),
        unet(x, t, labels.flip(0), augmentations),
        unet(x, t, labels, -augmentations),
        unet(-x, t, labels, augmentations),
    ):
        assert not torch.allclose(output, other, atol=1e-4)


@PATCHES
def test_every_parameter_takes_part(tiny_model, patch):
    unet = awake(UNet(changed(tiny_model, patch), 8 * patch))
    found = gradients(unet, torch.randn(2, 3, 8 * patch, 8 * patch))
    assert [name for name, gradient in found.items() if not gradient.any()] == []


@PATCHES
@pytest.mark.parametrize("attention", [[], [32]])
def test_attention_connects_all_pixels(tiny_model, patch, attention, monkeypatch):
    """Without group normalisation, whose mean and variance would do so too."""
    monkeypatch.setattr(F, "group_norm", lambda x, *_: x)
    config = changed(tiny_model, patch, channel_mults=[1], attention=attention)
    side = 32 * patch
    unet = awake(UNet(config, side)).double()
    x = torch.randn(1, 3, side, side, dtype=torch.float64, requires_grad=True)
    monkeypatch.setattr("ddpm.network.unet.timestep_embedding", lambda t, width: torch.ones(1, width).double())
    output = unet(x, torch.tensor([500]))
    for row, column in ((0, 0), (0, side - 1), (side - 1, side // 2)):
        (slope,) = torch.autograd.grad(output[0, 0, row, column], x, retain_graph=True)
        assert bool((slope != 0).all()) == bool(attention)


@PATCHES
def test_patches_come_back_to_their_places(patch):
    """Bit by bit, so no pixel of a patch changes places with another one either."""
    pixels = Pixels(patch, 3, 8)
    seen = []
    pixels.norm.register_forward_pre_hook(lambda layer, inputs: seen.append(inputs[0]))
    patches, fine = pixels.split(torch.randn(2, 3, 4 * patch, 6 * patch))
    assert patches.shape == (2, pixels.patch_channels, 4, 6)
    assert pixels(patches, -fine, torch.randn(2, 8)).shape == (2, 3, 4 * patch, 6 * patch)
    back, beside = seen[0].chunk(2, dim=1)
    assert torch.equal(back, fine) and torch.equal(beside, -fine)


@PATCHES
def test_an_image_that_moves_by_a_patch_gives_a_result_that_moves_by_a_patch(tiny_model, patch):
    """On a torus, where there are no borders; the network has no other notion of a place than the patch."""
    unet = awake(UNet(changed(tiny_model, patch, channel_mults=[1], attention=[8]), 8 * patch))
    for module in unet.modules():
        if isinstance(module, nn.Conv2d):
            module.padding_mode = "circular"
    x, t = torch.randn(1, 3, 8 * patch, 8 * patch), torch.tensor([500])
    output = unet(x, t)
    for down, right in ((patch, 0), (0, -patch), (3 * patch, 2 * patch)):
        moved = unet(x.roll((down, right), dims=(2, 3)), t)
        torch.testing.assert_close(moved, output.roll((down, right), dims=(2, 3)), atol=1e-4, rtol=1e-4)
    moved = unet(x.roll(1, dims=3), t)
    assert (moved - output.roll(1, dims=3)).abs().max() > 0.01  # or it would not work on patches


@PATCHES
def test_the_brightness_of_an_even_image_passes_the_last_normalisation(patch):
    pixels = Pixels(patch, 3, 8)
    awake(pixels)
    colours = torch.randn(2, 16, 1, 1).repeat_interleave(patch**2, dim=1)  # the same for all pixels of a patch
    dark, light = pixels(colours.expand(-1, -1, 8, 8), torch.zeros(2, 16, 8 * patch, 8 * patch), torch.zeros(2, 8))
    assert (dark - light)[..., 4:-4, 4:-4].abs().max() > 0.01


@pytest.mark.parametrize(
    ("patch", "attention", "expected"),
    [
        (2, [8], [16, 8, 8, 8, 8, 8, 16, 16]),  # one level each way down, two in the middle and two each way up
        (2, [16], [16, 8, 8, 8, 8, 8, 16, 16]),
        (4, [4], [8, 4, 4, 4, 4, 4, 8, 8]),
    ],
)
def test_the_levels_and_their_attention_see_the_grid(tiny_model, patch, attention, expected):
    unet = awake(UNet(changed(tiny_model, patch, attention=attention), 32))
    sides, attended = [], []
    for module in unet.modules():
        if isinstance(module, UNetBlock):
            module.register_forward_pre_hook(lambda level, inputs: sides.append(inputs[0].shape[-1]))
        if isinstance(module, Attention):
            module.register_forward_pre_hook(lambda level, inputs: attended.append(inputs[0].shape[-1]))
    unet(torch.randn(1, 3, 32, 32), torch.tensor([500]))
    assert sides == expected
    bottom = expected[3]  # the first level of the middle has attention as well
    assert sorted(attended) == sorted([*attention * 3, bottom])


@PATCHES
def test_activations_computed_again_give_the_same_gradients(tiny_model, patch):
    unet = UNet(changed(tiny_model, patch, dropout=0.2), 8 * patch, out_channels=6)
    awake(unet).train()
    x, calls = torch.randn(2, 3, 8 * patch, 8 * patch), []
    unet.pixels.conv.register_forward_pre_hook(lambda *_: calls.append(1))
    kept = gradients(unet, x)
    assert len(calls) == 1
    unet.checkpoint_activations = True
    again = gradients(unet, x)
    assert len(calls) == 3  # the thin layers hold the largest activations of all, so they are computed again too
    for name, gradient in kept.items():
        torch.testing.assert_close(again[name], gradient, msg=name)


@PATCHES
def test_channels_that_lie_together_give_the_same_gradients(tiny_model, patch):
    """As on a CPU, where the group normalisation is another one then."""
    unet, x = awake(UNet(changed(tiny_model, patch), 8 * patch)), torch.randn(2, 3, 8 * patch, 8 * patch)
    plain = gradients(unet, x)
    ordered = gradients(unet.to(memory_format=torch.channels_last), x.to(memory_format=torch.channels_last))
    for name, gradient in plain.items():
        torch.testing.assert_close(ordered[name], gradient, atol=1e-3, rtol=1e-3, msg=name)


@PATCHES
def test_a_few_steps_learn_an_image(tiny_model, patch):
    unet = UNet(changed(tiny_model, patch), 8 * patch)
    image = torch.from_numpy(disks(1, 8 * patch)).permute(0, 3, 1, 2) / 127.5 - 1
    noise, t = torch.randn_like(image), torch.tensor([900])
    optimizer = torch.optim.Adam(unet.parameters(), lr=4e-3)
    losses = []
    for _ in range(60):
        loss = F.mse_loss(unet(noise, t), image)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.05 * losses[0], losses


@PATCHES
def test_three_ways_join_patches_and_pixels(patch):
    """Written out: one that is linear, one that is normalised, and one that the embedding scales and shifts."""
    ends = awake(Pixels(patch, 3, 8)).double()
    side = 4 * patch
    patches, fine = torch.randn(2, ends.patch_channels, 4, 4).double(), torch.randn(2, 16, side, side).double()
    embedding = torch.randn(2, 8).double()

    def silu(x):
        return x / (1 + torch.exp(-x))  # Elfwing et al. 2018

    def normed(layer, x, groups):
        """Another number of groups would load the same weights and generate other images."""
        x = x.view(2, groups, -1)
        x = (x - x.mean(2, keepdim=True)) / (x.var(2, unbiased=False, keepdim=True) + 1e-5).sqrt()
        return x.view(2, -1, side, side) * layer.weight[:, None, None] + layer.bias[:, None, None]

    x = torch.cat([F.pixel_shuffle(patches, patch), fine], dim=1)
    plain = ends.conv(silu(normed(ends.norm, x, 8)))
    scale, shift = (silu(embedding) @ ends.embed.weight.T + ends.embed.bias)[:, :, None, None].chunk(2, dim=1)
    scaled = ends.conv2(silu(normed(ends.norm2, plain, 4) * (1 + scale) + shift))
    linear = torch.einsum("oi,bihw->bohw", ends.skip.weight[:, :, 0, 0], x) + ends.skip.bias[:, None, None]
    expected = ends.head(silu(plain + linear + scaled))
    torch.testing.assert_close(ends(patches, fine, embedding), expected)


@PATCHES
def test_models_with_fewer_layers_at_their_patches_answer_what_they_did(tmp_path, tiny_model, patch):
    """Those of versions before the linear way and the scaled one: one normalised way alone."""
    config = changed(tiny_model, patch, attention=[])
    write_model(tmp_path, config)
    weights, about = read_model(tmp_path)
    weights = {name: tensor.clone() for name, tensor in weights.items()}  # which lie in the file that is replaced
    layers = ("pixels.skip", "pixels.embed", "pixels.norm2", "pixels.conv2")
    later = [name for name in weights if name.startswith(layers)]
    unet = UNet(config, 16)
    unet.load_state_dict(weights)
    unet.pixels.forward = lambda patches, fine, embedding: unet.pixels.head(
        F.silu(unet.pixels.conv(F.silu(unet.pixels.norm(torch.cat([F.pixel_shuffle(patches, patch), fine], dim=1)))))
    )
    save_model(tmp_path, {name: tensor for name, tensor in weights.items() if name not in later}, about)
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([1, 900])
    found = ddpm.load_model(tmp_path, device="cpu").unet.eval()(x, t)
    torch.testing.assert_close(found, unet.eval()(x, t), atol=1e-4, rtol=1e-4)
    save_model(tmp_path, {name: tensor for name, tensor in weights.items() if name != later[0]}, about)
    with pytest.raises(InputError, match="do not fit each other"):
        ddpm.load_model(tmp_path, device="cpu")


@PATCHES
def test_a_model_folder_keeps_the_patch(tmp_path, tiny_model, patch):
    config = tiny_model.model_copy(update={"patch": patch, "attention": []})
    model = ddpm.load_model(write_model(tmp_path, config, conditional=True, variance="learned"), device="cpu")
    assert model.unet.pixels.patch == patch
    torch.manual_seed(5)
    written = awake(UNet(config.model_copy(update={"conditional": True}), 16, 3, 6, none_class=True))
    x, t, labels = torch.randn(2, 3, 16, 16), torch.tensor([1, 900]), torch.tensor([0, 2])
    torch.testing.assert_close(model.unet.eval()(x, t, labels), written(x, t, labels), atol=1e-4, rtol=1e-4)
    assert model.sample(2, steps=2, label="rose").std() > 1
    content = json.loads((tmp_path / "config.json").read_text())
    del content["model"]["patch"]
    (tmp_path / "config.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match="do not fit each other"):
        ddpm.load_model(tmp_path, device="cpu")


def test_a_model_folder_of_an_earlier_version_has_no_patches(tmp_path, tiny_model):
    images = ddpm.load_model(write_model(tmp_path, tiny_model), device="cpu").sample(2, steps=2)
    content = json.loads((tmp_path / "config.json").read_text())
    assert content["model"].pop("patch") == 1
    (tmp_path / "config.json").write_text(json.dumps(content))
    model = ddpm.load_model(tmp_path, device="cpu")
    assert model.unet.pixels is None
    assert (model.sample(2, steps=2) == images).all()
