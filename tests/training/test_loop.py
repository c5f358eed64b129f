import numpy as np
import pytest
import torch

from ddpm.diffusion.process import Diffusion
from ddpm.diffusion.vlb import bound
from ddpm.model.trained import DiffusionModel
from ddpm.network.unet import UNet
from ddpm.training.batches import ImageSet
from ddpm.training.ema import Ema
from ddpm.training.loop import Training
from tests.support.trainings import BreakOffError, KeptEvery, Recorder, die_at, disks, make, run, settings

CPU = torch.device("cpu")


def test_same_seed_gives_the_same_bytes_and_previews_change_nothing(tiny_model):
    images = disks(32)
    plain, seen = make(tiny_model, images, images[:8]), []
    history, _ = run(plain)
    watched = make(tiny_model, images, images[:8])

    def preview(unet, step):
        seen.append(step)
        torch.randn(1000)  # draws from the same stream as the training

    again, _ = run(watched, preview, preview_every=1)
    assert seen == [2, 4]
    assert history == again
    for ours, theirs in zip(
        plain.ema.model.state_dict().values(), watched.ema.model.state_dict().values(), strict=True
    ):
        assert torch.equal(ours, theirs)
    other, _ = run(make(tiny_model, images, images[:8], seed=1))
    assert other != history


def test_a_step_depends_on_the_weights_and_its_number_alone(tiny_model):
    """What exact resume will rest on: no random state is carried from step to step."""
    images = disks(32)
    whole, halves = make(tiny_model, images), make(tiny_model, images)
    for step in range(4):
        whole.train_step(step)
    for step in range(4):
        torch.manual_seed(12345 + step)
        halves.train_step(step)
    for ours, theirs in zip(whole.unet.parameters(), halves.unet.parameters(), strict=True):
        assert torch.equal(ours, theirs)


@pytest.mark.parametrize(("variance", "more"), [("fixed", set()), ("learned", {"vlb"})])
def test_curves_have_their_points(tiny_model, variance, more):
    images = disks(40)
    training = make(tiny_model, images, images[:8], epochs=4, variance=variance, batch_size=8, log_every=6)
    history, recorder = run(training)
    assert [point["step"] for point in history.train] == [6, 12, 18, 20]
    assert [point["epoch"] for point in history.train] == [1.2, 2.4, 3.6, 4.0]
    assert [point["step"] for point in history.heldout] == [5, 10, 15, 20]
    names = set().union(*(metrics for _, metrics in recorder.points))
    curves = {"loss", "grad_norm", "learning_rate", "images_per_second"} | more
    assert names == {f"train/{name}" for name in curves} | {"heldout/loss"}


def test_learning_rate_warms_up(tiny_model):
    history, _ = run(make(tiny_model, disks(16), epochs=8, warmup_steps=4, lr=0.1e-3, log_every=1))
    rates = [point["learning_rate"] for point in history.train]
    assert rates == pytest.approx([0.25e-4, 0.5e-4, 0.75e-4, 1e-4, 1e-4, 1e-4, 1e-4, 1e-4])


def test_ema_equals_its_recursion_and_forgets_the_start(tiny_model):
    unet = UNet(tiny_model, 16)
    ema = Ema(unet, decay=0.9)
    expected = [p.detach().clone() for p in unet.parameters()]
    for step in range(30):
        with torch.no_grad():
            for p in unet.parameters():
                p.add_(torch.randn_like(p))
        decay = min(0.9, (1 + step) / (10 + step))
        expected = [decay * e + (1 - decay) * p for e, p in zip(expected, unet.parameters(), strict=True)]
        ema.update(step)
    for ours, theirs in zip(ema.model.parameters(), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)
    assert not any(p.requires_grad for p in ema.model.parameters())


@pytest.mark.parametrize("target", ["eps", "x0"])
def test_training_lowers_the_heldout_loss(tiny_model, target):
    images = disks(128)
    training = make(tiny_model, images[32:], images[:32], epochs=20, target=target, ema_decay=0.95)
    before = training.heldout_loss()
    run(training)
    assert training.heldout_loss() < 0.35 * before  # an untrained network answers zero


def test_losses_with_a_learned_variance_can_be_compared_with_those_without(tiny_model):
    """The curves show L_simple, and the bound does not touch the prediction in the first step."""
    images = disks(32)
    fixed, learned = (make(tiny_model, images, images[:8], variance=variance) for variance in ("fixed", "learned"))
    assert learned.heldout_loss() == pytest.approx(fixed.heldout_loss())
    assert learned.train_step(0)[0].item() == pytest.approx(fixed.train_step(0)[0].item())
    ours, theirs = learned.unet.head[-1], fixed.unet.head[-1]
    assert torch.allclose(ours.weight[:3], theirs.weight, atol=1e-6)  # moved by the gradient of L_simple alone
    assert ours.weight[3:].any()


def test_the_curve_of_the_bound_is_the_sum_over_all_steps(tiny_model, monkeypatch):
    """A term is one step's share; published bounds, in bits per dimension, are the sum."""
    training = make(tiny_model, disks(32), variance="learned")

    def losses(network, x0, labels, t, eps):
        nothing = 0 * network(x0, t, labels).mean(dim=(1, 2, 3))
        return nothing + 2, nothing + 0.25

    monkeypatch.setattr(training.optimisation, "losses", losses)
    curves = dict(zip(training.curves, training.train_step(0).tolist(), strict=True))
    assert (curves["loss"], curves["vlb"]) == pytest.approx((2, 0.25 * training.diffusion.timesteps))


def test_training_lowers_the_bound(tiny_model):
    """By the variance: the same prediction with a variance that was not learned costs more bits."""
    images = disks(96)
    training = make(tiny_model, images, epochs=12, target="x0", variance="learned", ema_decay=0.95, lr=4e-3)
    diffusion = training.diffusion
    x0, labels = training.train_set.batch(torch.arange(96))
    t = torch.arange(96) // 4  # where the two bounds of the variance differ
    x_t = diffusion.add_noise(x0, t, torch.randn_like(x0))

    @torch.no_grad()
    def bits():
        prediction, v = diffusion.split(training.ema.model(x_t, t, labels))
        return [
            bound(diffusion, prediction, place, x0, x_t, t).mean().item()
            for place in (v, torch.zeros_like(v), torch.full_like(v, 0.5), torch.ones_like(v))
        ]

    before = bits()[0]
    run(training)
    learned, *fixed = bits()
    assert learned < before and learned < 0.8 * min(fixed)


def test_training_learns_a_toy_data_set(tiny_model):
    """Samples of the trained model must look like the data: dark ground, one disk, red or blue, two places."""
    training = make(tiny_model, disks(192), epochs=20, target="v", ema_decay=0.98, flip=False)
    run(training)

    config = {"schedule": "cosine", "diffusion": {"timesteps": 1000, "target": "v"}, "image_size": 16}
    samples = DiffusionModel(training.ema.model, config).sample(64, steps=30, seed=1).astype(float)
    ground = samples[:, :, [0, 1, -2, -1]].mean(axis=(1, 2, 3))
    assert np.median(np.abs(ground - 20)) < 15
    places = samples[:, [4, 12], 8]  # (64, upper or lower, RGB)
    assert np.median(places.max(axis=(1, 2))) > 170
    brightest = [sample[np.argmax(sample.max(axis=1))] for sample in places]
    colours = [int(np.argmax(colour)) for colour in brightest]
    assert colours.count(1) == 0 and min(colours.count(0), colours.count(2)) >= 8  # red and blue, never green


def test_a_conditional_network_learns_what_its_classes_look_like(conditional):
    """Class 0 is red and class 1 is blue; images asked for by class must have its colour, and without one either."""
    images = np.zeros((64, 16, 16, 3), dtype=np.uint8)
    labels = np.random.default_rng(0).integers(0, 2, 64)
    images[labels == 0, ..., 0] = images[labels == 1, ..., 2] = 200
    torch.manual_seed(0)
    unet = UNet(conditional, 16, num_classes=2, none_class=True)
    training = Training(
        unet,
        Diffusion("cosine", 1000, "v"),
        settings(batch_size=8, ema_decay=0.9),
        ImageSet(CPU, images, labels),
        ImageSet(CPU, images[:0], labels[:0]),
        epochs=20,
        seed=0,
    )
    run(training)
    config = {
        "schedule": "cosine",
        "diffusion": {"timesteps": 1000, "target": "v"},
        "image_size": 16,
        "model": {"conditional": True},
        "class_names": ["red", "blue"],
        "class_counts": [10**9, 1],
    }
    model = DiffusionModel(training.ema.model, config)

    def redness(**options):
        red, _, blue = np.moveaxis(model.sample(8, steps=10, **options).astype(float).mean(axis=(1, 2)), 1, 0)
        return red - blue

    assert redness().mean() > 80  # the class that is all but always drawn
    assert redness(label="red").mean() > 80 and redness(label="blue").mean() < -80
    assert redness(label="blue", guidance=2.0).mean() < -80


@pytest.mark.parametrize(
    ("images", "batch_size", "epochs", "every", "expected"),
    [
        (16, 8, 6, 2, [4, 8, 12]),
        (16, 8, 7, 3, [6, 12, 14]),
        (16, 8, 2, 50, [4]),
        (16, 8, 4, 0, []),
        (7, 3, 28, 27, [63, 66]),  # 27 * (7 / 3) is 63 and a trace
        (7, 3, 4, 2, [5, 10]),
    ],
)
def test_previews_come_after_every_so_many_epochs_and_at_the_end(
    tiny_model, images, batch_size, epochs, every, expected
):
    steps = []
    run(
        make(tiny_model, disks(images), epochs=epochs, batch_size=batch_size),
        lambda _unet, step: steps.append(step),
        every,
    )
    assert steps == expected


@pytest.mark.parametrize(
    ("kept_every", "deaths", "variance", "is_conditional"),
    [(1, [1, 2, 7], "learned", False), (3, [4, 8], "fixed", True), (100, [5], "fixed", False)],
)
def test_an_interrupted_training_ends_with_the_same_bytes(
    tiny_model, tmp_path, kept_every, deaths, variance, is_conditional
):
    """At any step, with the last checkpoint just written, older, or none: the same weights, averages and curves."""
    images = disks(40)
    model = tiny_model.model_copy(update={"dropout": 0.2, "conditional": is_conditional})

    def fresh():
        return make(
            model, images, images[:8], epochs=2, variance=variance, batch_size=8, log_every=4, label_dropout=0.5
        )

    straight = fresh()
    history, _ = run(straight)
    for number in [*deaths, None]:
        training, checkpoint = fresh(), KeptEvery(tmp_path, kept_every)
        if state := checkpoint.load():
            training.restore(state)
        if number is not None:
            die_at(training, number)
            with pytest.raises(BreakOffError):
                training.run(Recorder(), checkpoint)
    assert training.run(Recorder(), checkpoint) == history
    for ours, theirs in zip(training.ema.model.parameters(), straight.ema.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    for ours, theirs in zip(training.unet.parameters(), straight.unet.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_a_long_training_measures_its_held_out_loss_100_times(tiny_model, monkeypatch):
    images = disks(2)
    training = make(tiny_model, images, images, epochs=300, batch_size=2, log_every=10**6)
    monkeypatch.setattr(training, "train_step", lambda _step: torch.zeros(2))
    monkeypatch.setattr(training, "heldout_loss", lambda: 1.0)
    assert [point["step"] for point in run(training)[0].heldout] == list(range(3, 301, 3))


def test_images_per_second_are_those_since_the_last_point_without_previews(tiny_model, monkeypatch):
    training, now = make(tiny_model, disks(12), batch_size=4, epochs=4, log_every=3), [0.0]
    monkeypatch.setattr(training, "_now", lambda: now[0])
    monkeypatch.setattr("ddpm.training.loop.time.perf_counter", lambda: now[0])

    def step(_number):
        now[0] += 0.5
        return torch.zeros(2)

    def preview(*_):
        now[0] += 100

    monkeypatch.setattr(training, "train_step", step)
    _, recorder = run(training, preview, 1)
    name = "train/images_per_second"
    assert [metrics[name] for _, metrics in recorder.points if name in metrics] == pytest.approx([8.0] * 4)
