import numpy as np
import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker

from ddpm.network.unet import UNet
from ddpm.training.loop import MEASURED_AT_ONCE
from tests.support.trainings import disks, make

CPU = torch.device("cpu")


def test_heldout_loss_spreads_its_time_steps_over_all_images(tiny_model, monkeypatch):
    seen = []
    images = disks(64)
    training = make(tiny_model, images, images)
    losses = training.optimisation.losses
    monkeypatch.setattr(
        training.optimisation,
        "losses",
        lambda unet, x0, labels, t, eps: seen.append(t) or losses(unet, x0, labels, t, eps),
    )
    first = training.heldout_loss()
    times = torch.cat(seen).double()
    assert times.sort().values.diff().unique().numel() <= 2 and times.mean().item() == pytest.approx(499.5, abs=8)
    assert times.min() == 7 and times.max() == 992  # half a gap from both ends
    rows = torch.arange(64).double()
    assert torch.corrcoef(torch.stack([rows, times]))[0, 1].abs() < 0.3  # neighbours are often of one class
    assert training.heldout_loss() == first


def test_what_is_measured_of_a_network_has_nothing_to_do_with_the_batch_and_its_parts(tiny_model):
    images = disks(50)
    measured = []
    for options in ({"batch_size": 40}, {"batch_size": 40, "accumulate": 8}, {"batch_size": 5}):
        training = make(tiny_model, images, images, **options)
        torch.manual_seed(1)
        torch.nn.init.normal_(training.ema.model.head[-1].weight, std=0.05)
        measured.append(training.heldout_loss())
    assert measured[0] == measured[1] == measured[2] != 0


def test_measuring_needs_less_memory_than_a_step_with_four_images(config):
    """Of the full network, in bytes that are counted without being taken; so it fits where a training fits."""
    size = config.data.image_size

    def peak(count, measure):
        with FakeTensorMode():
            unet, x, t = UNet(config.model, size), torch.randn(count, 3, size, size), torch.zeros(count).long()
            tracker = MemTracker()
            tracker.track_external(unet, x, t)
            with tracker, torch.set_grad_enabled(not measure):
                loss = unet(x, t).square().mean()
                if not measure:
                    loss.backward()
            return tracker.get_tracker_snapshot("peak")[CPU]["Total"]

    assert peak(MEASURED_AT_ONCE, measure=True) < peak(4, measure=False)


def test_each_held_out_image_counts_once(tiny_model, monkeypatch):
    """The last batch has one image."""
    images = disks(MEASURED_AT_ONCE + 1)
    training = make(tiny_model, images, images)
    monkeypatch.setattr(training.optimisation, "losses", lambda _network, _x0, _labels, t, _eps: [t.double()])
    times = (np.arange(len(images)) + 0.5) / len(images) * 1000
    assert training.heldout_loss() == pytest.approx(times.astype(int).mean())
