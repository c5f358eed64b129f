"""Classifier-free guidance, classes, precision and batch size: what a model is asked, and how often."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

import ddpm
from ddpm.model.guidance import predict
from ddpm.model.model_file import save_model
from ddpm.model.trained import AUTO_BATCH
from ddpm.runtime.errors import InputError
from tests.support.networks import write_model


class Watched:
    """A network that notes the labels of each call, and has no memory for more than `limit` images."""

    def __init__(self, unet, limit=10**9):
        self.unet, self.limit, self.calls = unet, limit, []
        self.full: Exception = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB")

    def __getattr__(self, name):
        return getattr(self.unet, name)

    def __call__(self, x, t, labels):
        self.calls.append(None if labels is None else labels.tolist())
        if len(x) > self.limit:
            raise self.full
        return self.unet(x, t, labels)


@pytest.fixture
def make(tmp_path, tiny_model):
    def make(conditional=True, limit=10**9, **options):
        model = ddpm.load_model(write_model(tmp_path, tiny_model, conditional, **options), device="cpu")
        model.unet = Watched(model.unet, limit)
        return model

    return make


@pytest.mark.parametrize("variance", ["fixed", "learned"])
@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 3.0])
@torch.no_grad()
def test_prediction_is_that_without_a_class_plus_the_difference(make, guidance, variance):
    model = make(variance=variance)
    unet = model.unet.unet.eval()
    x, t = torch.randn(3, 3, 16, 16), torch.tensor([10, 500, 990])
    labels, none = torch.tensor([0, 2, 1]), torch.tensor([3, 3, 3])
    of_class, of_none = unet(x, t, labels), unet(x, t, none)
    assert (of_class - of_none).abs().max() > 0.01
    prediction, v = predict(model.unet, model.diffusion, x, t, labels, guidance)
    by_hand = [
        of_none[image, :3] * (1 - guidance) + guidance * of_class[image, :3]  # Ho & Salimans 2022, eq. 6
        for image in range(3)
    ]
    assert torch.allclose(prediction, torch.stack(by_hand), atol=1e-4)
    if variance == "fixed":
        assert v is None
    else:
        expected = (of_none if guidance == 0 else of_class)[:, 3:]
        assert torch.allclose(v, (expected + 1) / 2, atol=1e-5)


@pytest.mark.parametrize(
    ("guidance", "labels"), [(1.0, [2, 2]), (0.0, [3, 3]), (1.5, [2, 2, 3, 3]), (0.5, [2, 2, 3, 3])]
)
@pytest.mark.parametrize("sampler", ["ddpm", "dpmpp_2m"])
def test_only_guidance_costs_a_second_answer_and_never_a_second_call(make, guidance, labels, sampler):
    model = make()
    model.sample(2, steps=5, sampler=sampler, label="sunflower", guidance=guidance)
    assert model.unet.calls == [labels] * 5


def test_an_unconditional_network_is_asked_once_per_step_and_for_no_class(make):
    model = make(conditional=False)
    model.sample(2, steps=5)
    assert model.unet.calls == [None] * 5


def test_guidance_moves_images_away_from_those_without_a_class(make):
    model = make()
    none, half, full, double = (
        model.sample(4, steps=8, sampler="dpmpp_2m", label="rose", guidance=g).astype(float) for g in (0, 0.5, 1, 2)
    )
    assert 0 < np.abs(half - none).mean() < np.abs(full - none).mean() < np.abs(double - none).mean()
    assert np.array_equal(none, model.sample(4, steps=8, sampler="dpmpp_2m", label="tulip", guidance=0))


def test_a_class_does_not_change_the_noise_that_an_image_comes_from(make):
    """So a drawn class and the same one by name give the same image, and so do images of several classes at once."""
    model = make()
    model.config["class_counts"] = [1, 1, 1]
    drawn = model.sample(5, steps=4, seed=4)
    names = model.config["class_names"]
    labels = [names[number] for number in model.unet.calls[0]]
    assert labels == [names[number] for number in (0, 2, 2, 1, 0)]
    assert np.array_equal(drawn, model.sample(5, steps=4, seed=4, label=labels))
    by_twos = model.sample(5, steps=4, seed=4, label=labels, batch_size=2)
    assert np.abs(drawn.astype(int) - by_twos.astype(int)).max() <= 1
    starts = [next(model.trajectory(range(2), seed=4, label=label)) for label in (None, "rose", ["tulip", "rose"])]
    assert torch.equal(starts[0], starts[1]) and torch.equal(starts[0], starts[2])
    with pytest.raises(InputError, match="a name, or one for each of the 2 images"):
        model.trajectory(range(2), label=["rose"])
    for count in (4, 6):
        with pytest.raises(InputError, match=f"a name, or one for each of the {count} images"):
            next(model.batches(count, label=labels, batch_size=2))  # before the first is generated


@pytest.mark.parametrize("options", [{"conditional": False}, {"conditional": True, "none_class": False}])
def test_a_model_that_cannot_be_guided_says_so(make, options):
    with pytest.raises(InputError, match=r"guidance: found 1\.5, but this model cannot be guided; choose 1, or train"):
        make(**options).sample(1, steps=2, guidance=1.5)


def test_an_unconditional_model_refuses_a_class(make):
    with pytest.raises(InputError, match=r"class: this model was trained without classes; leave it out, or train"):
        make(conditional=False).sample(1, steps=2, label="rose")


def test_a_conditional_model_without_label_dropout_still_generates(make):
    """As models from before there was any."""
    model = make(none_class=False)
    model.sample(2, steps=2, label="tulip")
    assert model.unet.calls == [[1, 1]] * 2


def test_a_model_with_more_classes_than_names_is_refused(tmp_path, tiny_model):
    write_model(tmp_path, tiny_model, conditional=True)
    weights = load_file(tmp_path / "model.safetensors")
    weights["class_embedding.weight"] = weights["class_embedding.weight"].repeat(2, 1)
    save_model(tmp_path, weights, json.loads((tmp_path / "config.json").read_text()))
    with pytest.raises(InputError, match="do not fit each other"):
        ddpm.load_model(tmp_path, device="cpu")


def test_config_of_an_older_unconditional_model_is_enough(tmp_path, tiny_model):
    """It knows neither label dropout nor a learned variance."""
    write_model(tmp_path, tiny_model)
    config = json.loads((tmp_path / "config.json").read_text())
    del config["diffusion"]["variance"]
    (tmp_path / "config.json").write_text(json.dumps(config))
    assert ddpm.load_model(tmp_path, device="cpu").sample(1, steps=2).shape == (1, 16, 16, 3)


@pytest.mark.parametrize("guidance", [1.0, 2.0])
def test_bf16_is_used_by_the_network_alone_and_stays_close_to_fp32(make, guidance):
    model = make()
    answers = []
    model.unet.unet.register_forward_hook(lambda _module, _inputs, answer: answers.append(answer.dtype))
    options = {"steps": 8, "sampler": "dpmpp_2m", "label": "rose", "guidance": guidance}
    exact = model.sample(4, precision="fp32", **options).astype(int)
    assert set(answers) == {torch.float32}
    answers.clear()
    close = model.sample(4, precision="bf16", **options).astype(int)
    assert set(answers) == {torch.bfloat16}
    assert 0 < np.abs(exact - close).mean() < 3  # of 255 grey levels
    assert {x.dtype for x in model.trajectory(range(2), precision="bf16", **options)} == {torch.float32}
    x, t, labels = torch.randn(2, 3, 16, 16), torch.tensor([1, 2]), torch.tensor([0, 1])
    prediction, _ = predict(model.unet, model.diffusion, x, t, labels, guidance, torch.bfloat16)
    assert prediction.dtype == torch.float32
    assert np.array_equal(exact, model.sample(4, precision="auto", **options))  # on a CPU


# As PyTorch says it of a GPU, of a GPU that others have filled, and of a CPU.
@pytest.mark.parametrize(
    "full",
    [
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB"),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:124] DefaultCPUAllocator: can't allocate memory"),
    ],
)
def test_auto_batch_size_halves_until_it_fits(make, full):
    model = make(conditional=False, limit=3)
    model.unet.full = full
    images = model.sample(11, steps=2, batch_size="auto")
    assert np.abs(images.astype(int) - make(conditional=False).sample(11, steps=2).astype(int)).max() <= 1
    # 11 do not fit and 5 do not either; then 2 at a time, and never more again: 5 batches of 2 steps, and a single one
    assert len(model.unet.calls) == 2 + 6 * 2


def test_auto_batch_size_begins_with_its_guess(make):
    model = make()
    model.sample(AUTO_BATCH["cpu"] + 1, steps=1, batch_size="auto")
    assert [len(labels) for labels in model.unet.calls] == [AUTO_BATCH["cpu"], 1]


@pytest.mark.parametrize(("batch_size", "limit", "calls"), [(4, 3, 1), ("auto", 0, 4)])
def test_memory_that_is_short_for_one_image_or_a_wanted_number_is_an_error(make, batch_size, limit, calls):
    model = make(limit=limit)
    with pytest.raises(torch.OutOfMemoryError):
        model.sample(8, steps=1, batch_size=batch_size)
    assert len(model.unet.calls) == calls


def test_every_step_of_every_image_is_told(make):
    counts = []
    make().sample(7, steps=3, batch_size=4, on_step=counts.append)
    assert counts == [4, 4, 4, 3, 3, 3]


def test_frames_lead_evenly_from_noise_to_the_image(make):
    model = make()
    every = model.frames(range(2), 100, steps=6, seed=1)
    assert every.shape == (7, 2, 16, 16, 3)
    assert np.array_equal(every[-1], model.sample(2, steps=6, seed=1))
    assert np.array_equal(model.frames(range(2), 3, steps=6, seed=1), every[[0, 3, 6]])


def test_of_steps_that_do_not_divide_evenly_as_many_frames_are_shown_as_asked(make):
    model = make()
    every = model.frames(range(2), 100, steps=5, seed=1)
    assert np.array_equal(model.frames(range(2), 4, steps=5, seed=1), every[[0, 2, 3, 5]])
