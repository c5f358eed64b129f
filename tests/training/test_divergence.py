"""A training whose numbers are no longer finite: it names the step, and never keeps such a state."""

import json
from functools import partial

import pytest
import torch

from ddpm.config import parse_config
from ddpm.runtime.checkpoint import Checkpoint, checkpoint_for
from ddpm.runtime.errors import RunError
from ddpm.runtime.lineage import stage_key
from ddpm.training.divergence import Watch, is_finite
from tests.support.processes import share
from tests.support.trainings import KeptEvery, Recorder, disks, make, run

NAN, INF = float("nan"), float("inf")
BAD = 5  # the step whose numbers break


@pytest.fixture
def fresh(tiny_model):
    """Makes trainings of 12 steps, with points of the curve after step 10 and at the end."""
    return partial(make, tiny_model, disks(24), epochs=4, batch_size=8, log_every=10)


def poison_gradients(training):
    """The loss of step 5 stays finite, one of its gradients does not."""
    steps = iter(range(1, 100))
    training.unet.stem.weight.register_hook(lambda gradient: gradient * (NAN if next(steps) == BAD else 1))


def poison_loss(training):
    steps, losses = iter(range(1, 100)), training.optimisation.losses

    def broken(*batch):
        return [terms * (INF if step == BAD else 1) for step in [next(steps)] for terms in losses(*batch)]

    training.optimisation.losses = broken


def finite_tensors(content) -> bool:
    if isinstance(content, dict | list):
        return all(map(finite_tensors, content.values() if isinstance(content, dict) else content))
    return not isinstance(content, torch.Tensor) or bool(content.isfinite().all())


@pytest.mark.parametrize(("every", "kept"), [(1, 4), (2, 4), (3, 3), (100, 0)])
@pytest.mark.parametrize(
    ("poison", "said"),
    [
        (poison_gradients, r"at step 5 the gradient norm was nan \(the loss [\d.]+\)"),
        (poison_loss, "at step 5 the loss was inf and the gradient norm was nan"),
    ],
)
def test_it_stops_naming_the_step_and_keeps_the_last_good_checkpoint(fresh, tmp_path, poison, said, every, kept):
    """Whenever it was written, and although the next look at the loss would have been after step 10."""
    training = fresh()
    poison(training)
    keeps = f"the checkpoint after step {kept} is kept" if kept else "there is no checkpoint yet"
    with pytest.raises(RunError, match=rf"^training diverged: {said}; {keeps}; lower train\.lr .* starts afresh$"):
        training.run(Recorder(), KeptEvery(tmp_path, every))
    state = Checkpoint(tmp_path).load()
    assert (state["progress"]["steps"] if state else 0) == kept
    assert finite_tensors(state)


def test_the_variational_bound_is_watched_too(tiny_model):
    training = make(tiny_model, disks(16), variance="learned")
    training.optimisation.losses = lambda *batch: [torch.ones(16, requires_grad=True), torch.full((16,), INF)]
    with pytest.raises(RunError, match=r"at step 1 the variational bound was inf \(the loss 1, the gradient norm 0\)"):
        run(training)


@pytest.mark.parametrize("network", ["weights", "average"])
def test_weights_that_break_in_the_very_last_step_are_not_kept(fresh, tmp_path, network):
    """No loss ever shows it."""
    training = fresh()
    update = training.ema.update

    def breaking(step):
        update(step)
        if step == training.steps - 1:
            broken = training.unet if network == "weights" else training.ema.model
            next(broken.parameters()).data.view(-1)[0] = NAN

    training.ema.update = breaking
    with pytest.raises(RunError, match=r"after step 12 a weight was not finite, .* after step 11 is kept"):
        training.run(Recorder(), KeptEvery(tmp_path, 1))
    assert finite_tensors(Checkpoint(tmp_path).load())


def test_no_number_that_is_not_finite_reaches_a_curve(fresh, tiny_model, tmp_path):
    training = make(tiny_model, disks(24), disks(8), epochs=4, batch_size=8, log_every=1)
    poison_gradients(training)
    recorder = Recorder()
    with pytest.raises(RunError):
        training.run(recorder, KeptEvery(tmp_path, 100))
    points = [value for _, metrics in recorder.points for value in metrics.values()]
    assert points and all(abs(value) < INF for value in points)


def test_a_resumed_training_says_which_checkpoint_it_came_from(fresh, tmp_path):
    first = fresh()
    poison_gradients(first)
    for training in (first, fresh()):
        if state := Checkpoint(tmp_path).load():
            training.restore(state)
            training.optimisation.losses = lambda *batch: [torch.full((8,), NAN, requires_grad=True)]
        with pytest.raises(RunError, match=r"at step 5 .* the checkpoint after step 4 is kept"):
            training.run(Recorder(), KeptEvery(tmp_path, 2))


def test_the_first_bad_step_is_remembered_without_being_read():
    watch = Watch(["loss", "grad_norm"], torch.device("cpu"))
    for step, values in enumerate([[1, 2], [1, 2], [1, INF], [NAN, NAN]], start=7):
        watch.look(step, torch.tensor(values, dtype=torch.float32))
        assert bool(watch.fault()) == (step >= 9)
    assert watch.fault() == "at step 9 the gradient norm was inf (the loss 1)"


def test_all_processes_end_with_the_sentence_of_the_first(tmp_path):
    code, complaint = share(tmp_path, nan=3)
    assert code == 1
    assert complaint.startswith("error: training diverged: at step 3 the loss was nan and the gradient norm was nan")
    assert "; the checkpoint after step 2 is kept; lower train.lr" in complaint and complaint.count("\n") == 1
    assert Checkpoint(tmp_path).load()["progress"]["steps"] == 2


def test_a_lower_learning_rate_starts_afresh(params, tmp_path, monkeypatch):
    """By the key of its checkpoint, which is the one that the stage asks for."""
    (tmp_path / ".dvc").mkdir()
    pipeline = {"stages": {"train": {"cmd": "", "params": ["schedule", "epochs", "seed", "train"]}}}
    (tmp_path / "dvc.yaml").write_text(json.dumps(pipeline))
    monkeypatch.chdir(tmp_path)
    states = []
    for rate in (2e-4, 1e-4, 2e-4):
        params["train"]["lr"] = rate
        with checkpoint_for(stage_key("train", parse_config(params).model_dump(mode="json"))) as checkpoint:
            states.append(checkpoint.load())
            checkpoint.save({"rate": rate})
    assert states == [None, None, {"rate": 2e-4}]


@pytest.mark.parametrize("name", ["exp_avg", "exp_avg_sq"])
def test_a_moment_that_is_not_finite_is_seen(tiny_model, name):
    training = make(tiny_model, disks(8), batch_size=8)
    training.train_step(0)
    assert is_finite(training.optimisation)
    next(iter(training.optimisation.optimizer.state.values()))[name].view(-1)[0] = INF
    assert not is_finite(training.optimisation)
