"""That the benchmarks run and write what they should; their figures are no matter of a test."""

import argparse
import json
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import yaml
from diffusers import UNet2DModel
from torch import nn

from benchmarks import machine
from benchmarks.loops import Files
from benchmarks.speed import curve, sampling, train
from benchmarks.speed.contenders import CONTENDERS
from benchmarks.speed.flops import flops_per_image
from benchmarks.speed.turns import Player, orders, players
from ddpm.commands import estimate
from ddpm.commands.estimate import random_images
from ddpm.config import parse_config
from ddpm.data.dataset import load_packed
from ddpm.model.model_file import save_model
from ddpm.network.unet import UNet
from ddpm.runtime.errors import InputError, RunError


@pytest.fixture
def models(tiny_model, tmp_path):
    training = {"parameters": 1, "epochs": 1, "source": "synthetic"}
    config = {
        "schedule": "cosine",
        "diffusion": {"timesteps": 50, "target": "v", "variance": "fixed"},
        "model": tiny_model.model_dump(),
        "image_size": 16,
        "class_names": ["flower"],
        "class_counts": [1],
        "training": training,
    }
    save_model(tmp_path / "models", UNet(tiny_model, 16).state_dict(), config)
    return tmp_path / "models"


def test_speed_is_measured_beside_the_network_alone_and_diffusers(models, tmp_path, monkeypatch):
    monkeypatch.setattr(sampling, "MODELS", models)
    monkeypatch.setattr(sampling, "RESULTS", tmp_path)
    sampling.measure_speed(argparse.Namespace(batch_size=2, steps=2, rounds=2))
    result = json.loads((tmp_path / "sampling_speed.json").read_text())
    names = [f"{whose}: {name}" for whose in ("ours", "diffusers") for name in sampling.PAIRS]
    assert sorted(result["contenders"]) == sorted(names)
    for row in result["contenders"].values():
        assert 0 < row["images_per_second"]["min"] <= row["images_per_second"]["median"]
        assert row["time_over_network_alone"]["median"] > 0.5  # it contains the network's calls
    assert result["machine"]["torch"] == torch.__version__


def test_the_plot_has_a_line_per_sampler(tmp_path):
    rows = [
        {"sampler": sampler, **options, "steps": steps, "fid": 100 / steps, "kid": 0.1, "kid_error": 0.01}
        for sampler, options, counts in sampling.SCORED
        for steps in counts
    ]
    sampling.draw_scores(rows, "efficientnet_lite0", tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


@pytest.mark.parametrize(
    ("layer", "channels", "closed_form"),
    [
        # Forward, and twice as much for the gradients of weights and of the input.
        (lambda: nn.Conv2d(3, 8, 3, padding=1), 3, 3 * 2 * 8 * 3 * 9 * 16 * 16),
        (lambda: nn.Conv2d(3, 8, 1), 3, 3 * 2 * 8 * 3 * 16 * 16),
        (lambda: nn.Linear(16, 5), 3, 3 * 2 * 16 * 5 * 3 * 16),
    ],
)
def test_operations_of_a_layer_are_those_of_the_closed_form(layer, channels, closed_form):
    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.layer = nn.Conv2d(3, 3, 1), layer()

        def forward(self, x, t):
            return self.layer(self.first(x))

    # The first layer makes the second one's input want a gradient; its own input wants none.
    first = 2 * 2 * 3 * 3 * 16 * 16
    assert flops_per_image(Network, 16) == first + closed_form


def test_operations_of_a_network_on_patches_are_those_of_its_grid_and_its_ends(tiny_model):
    """Those of the same network at half the size, but for the convolutions of its first and last channels."""

    def convolution(inputs, outputs, side, passes=3, kernel=3):
        return passes * 2 * kernel**2 * inputs * outputs * side**2

    width = tiny_model.channels
    inner = flops_per_image(lambda: UNet(tiny_model, 16), 16)
    inner -= convolution(3, width, 16, passes=2) + convolution(width, 3, 16)
    inner += convolution(4 * 16, width, 16) + convolution(width, 4 * 16, 16)
    ends = convolution(3, 16, 32, passes=2) + convolution(16, 3, 32)
    ends += convolution(2 * 16, 16, 32) + convolution(2 * 16, 16, 32, kernel=1) + convolution(16, 16, 32)
    ends += convolution(4 * width, 2 * 16, side=1, kernel=1)  # the embedding's scales and shifts
    patches = tiny_model.model_copy(update={"patch": 2})
    assert flops_per_image(lambda: UNet(patches, 32), 32) == inner + ends


@pytest.fixture
def tiny(params, tiny_model):
    params["model"] = tiny_model.model_dump()
    params["data"] |= {"image_size": 16, "source": "synthetic"}
    params["train"] |= {"batch_size": 16, "precision": "fp32"}
    return parse_config(params | {"device": "cpu"})


@pytest.fixture
def in_this_process(monkeypatch):
    """Let the contenders take their turns here, which saves the start of a process for each."""

    @contextmanager
    def players(names, work):
        yield [Player(name, *_here(CONTENDERS[name](work))) for name in names]

    def _here(contender):
        seconds = []

        def send(steps):
            seconds.append(estimate.seconds_of(lambda: contender.run(steps), torch.device("cpu")))

        answers = SimpleNamespace(send=send, recv=lambda: {"seconds": seconds[-1], "peak_memory": None})
        return {"parameters": contender.parameters, "flops": contender.flops}, answers

    monkeypatch.setattr(train, "players", players)


@pytest.fixture
def workspace(tiny, tmp_path, monkeypatch):
    """A workspace with packed images and parameters; results go into it as well."""
    here = machine(torch.device("cpu"))  # which asks git, and below there is no repository
    random_images(tiny, 150).save(tmp_path / "data/processed")
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny.model_dump(mode="json")))
    for module in (train, curve):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
        monkeypatch.setattr(module, "machine", lambda device: here)
    monkeypatch.setattr(estimate, "CHUNK_SECONDS", 0.05)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_ours_and_theirs_train_the_same_network_and_ratios_are_taken_within_a_round(
    workspace, in_this_process, monkeypatch
):
    names = ["ours", "diffusers", "diffusers_fast"]
    monkeypatch.setattr("benchmarks.loops.os.cpu_count", lambda: 1)  # loader processes
    train.measure_speed(argparse.Namespace(batch_size=None, steps=1, rounds=3, only=names))
    result = json.loads((workspace / "train_speed.json").read_text())
    rows = result["contenders"]
    assert list(rows) == names and result["batch"] == 16
    assert len({row["parameters"] for row in rows.values()}) == 1
    assert len({row["flops"] for row in rows.values()}) == 1
    assert rows["ours"]["ours_over_this"] == {"min": 1.0, "median": 1.0, "max": 1.0}
    for row in rows.values():
        for spread in (row["images_per_second"], row["ours_over_this"], row["fraction_of_peak"]):
            assert 0 < spread["min"] <= spread["median"] <= spread["max"]
    assert (workspace / "train_speed.png").stat().st_size > 5_000
    shares = result["shares"]
    assert shares["loading_share"] == pytest.approx(shares["loading_seconds"] / shares["step_seconds"])
    assert 0 < shares["checkpoint_share"] <= 0.01 and shares["tracking_share"] > 0
    table = train.table(result).splitlines()
    assert len(table) == 4 + len(names) and table[4].startswith("| this project | ")


def test_the_published_loop_trains_the_exported_network_on_every_image(tiny, monkeypatch):
    with train.workload(tiny, random_images(tiny, 150)) as work:
        assert len(list(work.pngs.iterdir())) == 144  # 9 whole batches
        images = Files(work.pngs, 16)
        packed = load_packed(work.packed).images
        for number in (0, 143):
            wanted = torch.from_numpy(packed[number].copy()).permute(2, 0, 1) / 127.5 - 1
            image = images[number]
            assert min((image - wanted).abs().max(), (image.flip(-1) - wanted).abs().max()) < 1e-6
        built, losses = [], []
        build, mean_square = UNet2DModel.from_pretrained, torch.nn.functional.mse_loss
        monkeypatch.setattr(UNet2DModel, "from_pretrained", lambda *a, **b: built.append(build(*a, **b)) or built[-1])
        monkeypatch.setattr(torch.nn.functional, "mse_loss", lambda *a: losses.append(mean_square(*a)) or losses[-1])
        contender = CONTENDERS["diffusers"](work)
        assert not built[0].conv_out.weight.any()
        contender.run(11)  # more than an epoch
    assert losses[0].item() == pytest.approx(1, rel=0.1)  # of the noise alone, because the last layer is zero
    assert len(losses) == 11 and built[0].conv_out.weight.all()


def test_denoising_diffusion_pytorch_trains_a_network_of_about_the_size(tiny, monkeypatch):
    monkeypatch.setattr("denoising_diffusion_pytorch.denoising_diffusion_pytorch.cpu_count", lambda: 0)
    with train.workload(tiny, random_images(tiny, 150)) as work:
        contender = CONTENDERS["denoising_diffusion_pytorch"](work)
        contender.run(2)
    assert contender.parameters / work.parameters == pytest.approx(1, abs=0.5)


def test_every_round_has_another_order_and_nobody_is_always_after_the_same_neighbour():
    names = ["a", "b", "c", "d"]
    rounds = list(orders(names, 7))
    assert all(sorted(order) == names for order in rounds) and rounds == list(orders(names, 7))
    for name in names:
        before = {order[order.index(name) - 1] for order in rounds if order.index(name) > 0}
        assert len(before) > 1


def test_a_contender_runs_in_a_process_of_its_own(tiny):
    with train.workload(tiny, random_images(tiny, 32)) as work, players(["ours"], work) as (ours,):
        assert ours.facts["parameters"] == work.parameters
        assert ours.turn(2)["seconds"] > 0 and ours.turn(1)["peak_memory"] is None


def test_a_contender_that_fails_is_told(tiny, capfd):
    with (
        train.workload(tiny, random_images(tiny, 32)) as work,  # its Trainer wants 100 images
        pytest.raises(RunError, match=r"^denoising_diffusion_pytorch: this contender failed, see above"),
        players(["denoising_diffusion_pytorch"], work),
    ):
        pass
    assert "you should have at least 100 images" in capfd.readouterr().err


@pytest.mark.parametrize(
    ("values", "reason"), [({"conditional": True}, "without classes"), ({"patch": 2}, "train one with model.patch: 1")]
)
def test_networks_that_the_peers_cannot_train_are_refused(params, values, reason):
    params["model"] |= values
    params["train"]["batch_size"] = 2
    config = parse_config(params)
    with pytest.raises(InputError, match=reason), train.workload(config, random_images(config, 2)):
        pass


def test_the_curve_changes_one_thing_at_a_time(workspace, tiny):
    curve.measure_curve(argparse.Namespace(batch_size=4, steps=1, rounds=2))
    rows = json.loads((workspace / "train_curve.json").read_text())["rows"]
    for axis, values in {"batch": [1, 2, 4, 8], "width": [8, 16, 32], "resolution": [8, 16, 32]}.items():
        assert [row[axis] for row in rows if row["axis"] == axis] == values
        for other in curve.FACTORS.keys() - {axis}:
            assert len({row[other] for row in rows if row["axis"] == axis}) == 1
        assert all(
            len({row[other] for row in rows if row["axis"] == axis}) == 1 for other in curve.FACTORS if other != axis
        )
    assert all(row["images_per_second"]["min"] > 0 for row in rows)
    assert curve.scaled(tiny, "resolution", 2, None).model.attention == [16]  # the same depth
    by_size = [row["flops"] for row in rows if row["axis"] == "resolution"]
    assert 3.9 < by_size[1] / by_size[0] < 4.2  # as many as pixels, and a little for attention
    assert (workspace / "train_curve.png").stat().st_size > 5_000


def test_the_table_of_the_readme_is_that_of_the_measurement():
    table = train.table(json.loads(Path("reports/benchmarks/train_speed.json").read_text()))
    assert table in Path("README.md").read_text(), "paste what `python -m benchmarks.speed.train table` prints"
