import threading

import numpy as np
import pytest
import torch

from ddpm.training import batches
from ddpm.training.batches import BatchOrder, ImageSet, StreamedSet, place_images
from tests.support.trainings import disks, make, run

CPU = torch.device("cpu")


@pytest.mark.parametrize(("count", "batch_size"), [(10, 4), (10, 10), (7, 16), (1, 3), (100, 32)])
def test_every_epoch_takes_every_image_once(count, batch_size):
    order = BatchOrder(count, batch_size, seed=3)
    epochs = 12
    stream = np.concatenate([order.rows(step) for step in range(-(-epochs * count // batch_size))])[: epochs * count]
    for epoch in stream.reshape(epochs, count):
        assert sorted(epoch) == list(range(count))


def test_order_depends_on_seed_and_step_alone():
    order, again = BatchOrder(50, 8, seed=1), BatchOrder(50, 8, seed=1)
    [order.rows(step) for step in range(20)]
    assert np.array_equal(order.rows(13), again.rows(13))
    assert not np.array_equal(order.rows(13), BatchOrder(50, 8, seed=2).rows(13))


@pytest.mark.parametrize("is_conditional", [False, True])
def test_streamed_images_give_the_same_bytes(tiny_model, tmp_path, is_conditional):
    """From a memory map, of which the training and the held-out images are rows in any order."""
    images, labels = disks(40), np.arange(40) % 2
    np.save(tmp_path / "images.npy", images)
    rows = np.random.default_rng(0).permutation(40)
    histories, weights = [], []
    for stream in (False, True):
        source = np.load(tmp_path / "images.npy", mmap_mode="r")
        train_set, heldout_set = place_images(CPU, source, labels, rows[:32], rows[32:], stream=stream)
        assert isinstance(train_set, StreamedSet) == stream and len(train_set) == 32
        model = tiny_model.model_copy(update={"conditional": is_conditional})
        training = make(model, images[:32], images[32:], epochs=3)
        training.heldout_set, training.optimisation._train_set = heldout_set, train_set
        histories.append(run(training)[0])
        weights.append(training.ema.model.state_dict())
    assert histories[0] == histories[1]
    for ours, theirs in zip(weights[0].values(), weights[1].values(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_next_batch_is_read_ahead_and_once(tiny_model, monkeypatch):
    images, reads = disks(32), []
    read = StreamedSet._read
    monkeypatch.setattr(
        StreamedSet, "_read", lambda self, rows: reads.append(threading.get_ident()) or read(self, rows)
    )
    training = make(tiny_model, images)
    (training.optimisation._train_set,) = place_images(CPU, images, np.zeros(32), np.arange(32), stream=True)
    for step in range(4):
        training.train_step(step)
    training.optimisation._train_set._reader.shutdown()
    assert len(reads) == 5 and reads[0] == threading.get_ident() and threading.get_ident() not in reads[1:]


def test_images_stay_on_the_disk_when_they_would_take_more_than_a_quarter_of_the_free_memory(monkeypatch):
    images = disks(8)
    for free, kind in ((4 * images.nbytes, ImageSet), (4 * images.nbytes - 4, StreamedSet)):
        monkeypatch.setattr(batches, "free_memory", lambda device, free=free: free)
        (chosen,) = place_images(CPU, images, np.zeros(8), np.arange(8))
        assert type(chosen) is kind


def test_a_batch_need_not_be_the_one_that_was_expected():
    images = disks(8)
    images[:, 0, 0, 0] = np.arange(8)
    streamed = StreamedSet(CPU, images, np.arange(8), np.arange(8))
    streamed.expect(torch.tensor([1, 2, 3]))
    x0, labels = streamed.batch(torch.tensor([5, 6, 7]))
    assert ((x0[:, 0, 0, 0] + 1) * 127.5).round().tolist() == labels.tolist() == [5, 6, 7]
