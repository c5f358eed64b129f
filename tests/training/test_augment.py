"""Augmentation that does not leak into the samples (Karras et al. 2022, appendix F.2)."""

import math

import numpy as np
import pytest
import torch

from ddpm import load_model
from ddpm.model.model_file import save_model
from ddpm.model.trained import DiffusionModel
from ddpm.network.unet import UNet
from ddpm.training.augment import LABELS, draw, transform
from ddpm.training.step import TrainStep
from tests.support.networks import awake
from tests.support.trainings import KeptEvery, Recorder, disks, make, run

CPU = torch.device("cpu")
FLIP, SIZE, COS, SIN, ALONG, ACROSS, SHIFT_X, SHIFT_Y = range(LABELS)


def label(**values: float) -> torch.Tensor:
    places = {"flip": FLIP, "size": SIZE, "along": ALONG, "across": ACROSS, "x": SHIFT_X, "y": SHIFT_Y}
    labels = torch.zeros(1, LABELS)
    if (angle := values.pop("turn", None)) is not None:
        labels[0, COS], labels[0, SIN] = math.cos(angle) - 1, math.sin(angle)
    for name, value in values.items():
        labels[0, places[name]] = value
    return labels


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, 16, 16) * 2 - 1


@pytest.mark.parametrize(
    ("labels", "expected"),
    [
        (label(flip=1), lambda image: image.flip(-2)),
        (label(turn=math.pi / 2), lambda image: image.rot90(-1, (-2, -1))),
        (label(turn=math.pi), lambda image: image.rot90(2, (-2, -1))),
        (label(flip=1, turn=math.pi), lambda image: image.flip(-1)),
        (label(flip=1, turn=math.pi / 2), lambda image: image.flip(-2).rot90(-1, (-2, -1))),
        # A side is 16 pixels, so 1 is a shift by 2; what comes in is the mirror image.
        (label(x=1), lambda image: torch.cat([image[..., :2].flip(-1), image[..., :-2]], dim=-1)),
        (label(y=-0.5), lambda image: torch.cat([image[..., 1:, :], image[..., -1:, :]], dim=-2)),
        (label(flip=1, y=0.5), lambda image: torch.cat([image[..., -1:, :], image.flip(-2)[..., :-1, :]], dim=-2)),
    ],
)
def test_flips_right_angles_and_whole_pixels_move_pixels(image, labels, expected):
    torch.testing.assert_close(transform(image, labels), expected(image), atol=2e-4, rtol=0)


def test_twice_the_size_is_the_middle_enlarged(image):
    """2^0.2 to the power of 5. At the rim the enlarged middle knows nothing of what is around it."""
    middle = torch.nn.functional.interpolate(image[..., 4:12, 4:12], scale_factor=2, mode="bicubic").clamp(-1, 1)
    ours = transform(image, label(size=5))
    torch.testing.assert_close(ours[..., 4:-4, 4:-4], middle[..., 4:-4, 4:-4], atol=1e-4, rtol=0)


def homogeneous(a: float, b: float, c: float, d: float, x: float = 0.0, y: float = 0.0) -> np.ndarray:
    return np.array([[a, b, x], [c, d, y], [0, 0, 1]])


def rotation(angle: float) -> np.ndarray:
    return homogeneous(math.cos(angle), -math.sin(angle), math.sin(angle), math.cos(angle))


def test_the_label_says_what_was_done():
    """All at once, by the matrices of table 6, on slopes, which show where each pixel comes from."""
    rng, side = np.random.default_rng(0), 32
    centres = (np.arange(side) + 0.5) * 2 / side - 1
    points = np.stack([*np.meshgrid(centres, centres), np.ones((side, side))])  # x, y, 1
    slopes = torch.tensor(points[:2])[None].float()
    compared = 0
    for _ in range(50):
        flip, angle, axis = rng.integers(2), *rng.uniform(-math.pi, math.pi, 2)
        size, strength, x, y = rng.normal(size=4)
        wanted = (
            homogeneous(1, 0, 0, 1, x * 2 / 8, y * 2 / 8)  # a side is 2 long
            @ rotation(axis)
            @ homogeneous(2 ** (0.2 * strength), 0, 0, 2 ** (-0.2 * strength))
            @ rotation(-axis)
            @ rotation(angle)
            @ homogeneous(2 ** (0.2 * size), 0, 0, 2 ** (0.2 * size))
            @ homogeneous(1, 0, 0, 1 - 2 * flip)
        )
        stretch = {"along": strength * math.cos(2 * axis), "across": strength * math.sin(2 * axis)}
        labels = label(flip=flip, size=size, turn=angle, **stretch, x=x, y=y)
        origins = np.einsum("ij,jhw->ihw", np.linalg.inv(wanted), points)[:2]
        inside = torch.tensor((np.abs(origins) < 1 - 4 / side).all(axis=0))
        found = transform(slopes, labels)[0]
        for channel in (0, 1):
            expected = torch.tensor(origins[channel]).float()
            # PyTorch's bicubic kernel (a = -0.75) does not keep a slope quite straight: a tenth of a pixel.
            torch.testing.assert_close(found[channel][inside], expected[inside], atol=0.1 * 2 / side, rtol=0)
        compared += inside.sum().item()
    assert compared > 50 * side**2 / 4


def test_an_image_to_which_nothing_is_done_stays_as_it_is():
    """Bit for bit, on a side that is no power of 2, where the centres of pixels are rounded."""
    image = torch.rand(1, 3, 11, 11) * 2 - 1
    images, labels = image.expand(3, -1, -1, -1), torch.cat([label(), label(x=0.3), label()])
    ours = transform(images, labels)
    assert torch.equal(ours[0], image[0]) and torch.equal(ours[2], image[0]) and not torch.equal(ours[1], image[0])


def test_images_stay_in_their_range():
    checks = (torch.randint(2, (64, 3, 16, 16)) * 2 - 1).float()  # whose interpolation overshoots
    moved = transform(checks, draw(64, 0.9, CPU))
    assert moved.abs().max() == 1 and moved.isfinite().all()


def test_each_transformation_is_drawn_with_its_probability_and_distribution():
    count, probability = 200_000, 0.15
    labels = draw(count, probability, CPU)
    flip, size, cosine, sine, along, across, x, y = labels.unbind(dim=1)
    turn, strength = torch.atan2(sine, cosine + 1), torch.hypot(along, across)
    drawn = torch.stack([size != 0, turn != 0, strength != 0, x != 0, flip == 1]).double()
    shares = torch.tensor([probability] * 4 + [probability / 2]).double()  # a flip, if drawn, is by a coin
    error = (probability / count) ** 0.5
    torch.testing.assert_close(drawn.mean(dim=1), shares, atol=5 * error, rtol=0)
    together = drawn @ drawn.T / count  # two of them, drawn independently
    together.fill_diagonal_(0)
    expected = torch.outer(shares, shares).fill_diagonal_(0)
    torch.testing.assert_close(together, expected, atol=5 * error, rtol=0)
    assert ((x != 0) == (y != 0)).all() and set(flip.tolist()) == {0, 1}

    turned = strength[across != 0].count_nonzero() / strength.count_nonzero()
    assert turned.item() == pytest.approx(0.5, abs=0.02)  # the others are stretched along the x-axis
    for angles in (turn[turn != 0], torch.atan2(across, along)[across != 0]):
        places = (angles.double() / (2 * math.pi) + 0.5).sort().values
        steps = torch.linspace(0, 1, len(places)).double()
        assert (places - steps).abs().max() < 2 / len(places) ** 0.5  # Kolmogorov and Smirnov: one in 1,500
    for normal in (size, x, y):
        normal = normal[normal != 0]
        assert normal.mean().abs() < 5 / len(normal) ** 0.5 and normal.std().item() == pytest.approx(1, abs=0.03)
    assert strength[strength != 0].square().mean().item() == pytest.approx(1, abs=0.05)
    assert not draw(100, 0.0, CPU).any()


def test_labels_of_zero_are_none_and_the_layer_changes_nothing_else(tiny_model):
    """Bit for bit, at the start and when all layers have weights."""
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([3, 900])
    torch.manual_seed(1)
    plain = UNet(tiny_model, 16)
    torch.manual_seed(1)
    told = UNet(tiny_model, 16, augment_labels=LABELS)
    assert not told.augment.weight.any() and told.augment.bias is None
    assert told.sampling_weights().keys() == plain.state_dict().keys() == plain.sampling_weights().keys()
    for name, tensor in told.sampling_weights().items():
        assert torch.equal(tensor, plain.state_dict()[name])
    awake(told)
    plain.load_state_dict(told.sampling_weights())
    plain.eval()
    for output in (told(x, t), told(x, t, None, torch.zeros(2, LABELS))):
        assert torch.equal(output, plain(x, t))
    for number in range(LABELS):
        assert not torch.allclose(told(x, t, None, torch.eye(LABELS)[[number, number]]), plain(x, t))


@pytest.fixture
def seen(monkeypatch):
    """What each call of `losses` is given but the network, which is left out."""
    calls = []
    monkeypatch.setattr(
        TrainStep, "losses", lambda self, unet, *batch: calls.append(batch) or [torch.ones(1, requires_grad=True)]
    )
    return calls


@pytest.mark.parametrize("flip", [False, True])
def test_nothing_but_the_images_changes_and_only_those_that_are_said_to(tiny_model, seen, flip):
    model, images = tiny_model.model_copy(update={"conditional": True}), disks(48)
    for probability in (0.0, 0.15):
        training = make(model, images, images[:8], augment=probability, batch_size=48, flip=flip)
        training.train_step(2)
    (x0, *rest), (moved, *other_rest, labels) = seen
    assert len(rest) == 3 and all(torch.equal(ours, theirs) for ours, theirs in zip(rest, other_rest, strict=True))
    told = labels.any(dim=1)
    assert 10 < told.sum() < 38  # 26 of 48 are expected
    assert torch.equal(x0[~told], moved[~told]) and (x0 != moved)[told].flatten(1).any(dim=1).all()
    torch.testing.assert_close(moved, transform(x0, labels))
    torch.manual_seed(12345)
    training.train_step(2)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(seen[1], seen[2], strict=True))
    training.heldout_loss()
    assert len(seen[3]) == 4  # as they are, and without labels


def make_told(model, images, heldout=None, **options):
    """A training with augmentation in which all layers but that of the labels have weights."""
    training = make(model, images, heldout, augment=0.3, **options)
    awake(training.unet)  # so that gradients reach the layer of the labels
    training.unet.augment.weight.data.zero_()
    return training


def test_the_layer_of_the_labels_learns_and_parts_of_a_batch_give_the_same_gradients(tiny_model):
    images, results = disks(16), []
    for parts in (1, 3):
        training = make_told(tiny_model, images, accumulate=parts, grad_clip=1e9)
        curves = training.train_step(0)
        results.append((curves, [parameter.grad for parameter in training.unet.parameters()]))
        assert training.unet.augment.weight.any()
    (whole, ours), (in_parts, theirs) = results
    torch.testing.assert_close(whole, in_parts, rtol=1e-5, atol=0)
    scale = max(gradient.abs().max() for gradient in ours).item()
    for our, their in zip(ours, theirs, strict=True):
        torch.testing.assert_close(our, their, rtol=1e-4, atol=1e-5 * scale)


def test_a_training_that_goes_on_and_one_that_forgets_activations_give_the_same_bytes(tiny_model, tmp_path):
    model, images = tiny_model.model_copy(update={"dropout": 0.2}), disks(32)
    straight = make_told(model, images, images[:8])
    history, _ = run(straight)
    begun = make_told(model, images, images[:8])
    for step in range(2):
        begun.progress.sums += begun.train_step(step)
        begun.progress.steps = step + 1
    KeptEvery(tmp_path, 1).save(begun.state())
    resumed = make_told(model, images, images[:8], checkpoint_activations=True)
    resumed.restore(KeptEvery(tmp_path, 100).load())
    assert resumed.run(Recorder(), KeptEvery(tmp_path, 100)).train == history.train
    for ours, theirs in zip(resumed.ema.model.parameters(), straight.ema.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    assert straight.ema.model.augment.weight.any()


def test_the_saved_model_needs_no_layer_and_generates_the_same_bytes(tiny_model, tmp_path):
    training = make_told(tiny_model, disks(16))
    run(training)
    training.ema.model.augment.weight.data.normal_()
    config = {
        "model": tiny_model.model_dump(),
        "diffusion": {"timesteps": 1000, "target": "eps", "variance": "fixed"},
        "schedule": "cosine",
        "image_size": 16,
        "class_names": ["disk"],
        "class_counts": [16],
    }
    save_model(tmp_path, training.ema.model.sampling_weights(), config)
    saved = load_model(tmp_path, device="cpu")
    assert saved.unet.augment is None
    options = {"steps": 5, "sampler": "dpmpp_2m_sde", "seed": 3}
    assert np.array_equal(saved.sample(4, **options), DiffusionModel(training.ema.model, config).sample(4, **options))


def test_what_is_done_to_images_does_not_leak_into_samples(tiny_model):
    """A quarter are upside down, half are turned by any angle: told of nothing, the network still knows the way up.

    Never told, it could at best answer the mean of them all, which is 0.5 brighter above.
    """
    model = tiny_model.model_copy(update={"channel_mults": [1], "attention": []})
    images = np.zeros((8, 8, 8, 3), dtype=np.uint8)
    images[:, :4] = 255
    training = make(model, images, target="x0", batch_size=32, augment=0.5, flip=False, ema_decay=0.9, lr=1e-2)
    for step in range(250):
        training.train_step(step)
    x_t, t = torch.randn(16, 3, 8, 8), torch.full((16,), 999)  # pure noise, which shows nothing of the image

    @torch.no_grad()
    def brighter_above(labels):
        guess = training.ema.model(x_t, t, None, labels)
        return (guess[:, :, :4].mean() - guess[:, :, 4:].mean()).item()

    assert brighter_above(None) > 1.3  # of 2
    assert brighter_above(label(flip=1).expand(16, -1)) < -0.5
