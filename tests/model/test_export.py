"""An exported model against the library that it is exported for: the same weights, noise and steps give the same."""

import re
import subprocess
import sys

import pytest
import torch
from diffusers import DDIMPipeline, DDIMScheduler, DDPMPipeline, DDPMScheduler

from ddpm import load_model
from ddpm.config import ModelConfig
from ddpm.diffusion.noise import ImageNoise
from ddpm.diffusion.samplers import SAMPLERS, trailing
from ddpm.model.diffusers_format import unet_config
from ddpm.network.unet import UNet, count_parameters
from tests.support.exported import CLASSES, NETWORKS, UNCONDITIONAL, export, write_model


@pytest.fixture
def both(tmp_path, monkeypatch):
    """Our model, and the folder that it was exported to."""

    def make(*recipe, **others):
        folder = write_model(tmp_path / "models", *recipe, **others)
        export(monkeypatch, "--model", folder, "--format", "diffusers", tmp_path / "exported")
        return load_model(folder, device="cpu"), tmp_path / "exported"

    return make


def labels_of(model, n):
    return torch.arange(n) % len(CLASSES) if model.unet.class_embedding is not None else None


@pytest.mark.parametrize("recipe", NETWORKS.values(), ids=NETWORKS)
@torch.inference_mode()
def test_networks_agree(both, recipe):
    model, folder = both(*recipe)
    theirs = DDPMPipeline.from_pretrained(folder).unet
    x = torch.randn(2, 3, model.image_size, model.image_size)
    labels = labels_of(model, 2)
    for t in (0, 1, 37, 500, 999):
        ours = model.unet.eval()(x, torch.full((2,), t), labels)
        assert ours.abs().max() > 0.1
        assert (ours - theirs(x, t, labels).sample).abs().max() < 1e-5, t


def generate(model, sampler, steps, noise, labels):
    """The images of our samplers: a network's answer in, clipped image and variance out."""

    def denoise(x, t):
        times = torch.full((len(x),), t)
        prediction, v = model.diffusion.split(model.unet.eval()(x, times, labels))
        return model.diffusion.predict_x0(prediction, x, times).clamp(-1, 1), v

    options = {"variance": "learned"} if sampler == "ddpm" and model.diffusion.variance == "learned" else {}
    *_, x = SAMPLERS[sampler](denoise, model.diffusion, noise(), trailing(model.diffusion, steps), noise, **options)
    return x


def generate_with_diffusers(pipeline, scheduler, steps, noise, labels, **options):
    scheduler.set_timesteps(steps)
    x = noise()
    for t in scheduler.timesteps:
        output = pipeline.unet(x, t, labels).sample
        if isinstance(scheduler, DDIMScheduler):
            output = output[:, :3]  # it knows nothing of learned variances
        x = scheduler.step(output, t, x, **options).prev_sample
    return x


def share(monkeypatch, noise, steps):
    """Let diffusers draw from `noise`, as often as we do: in fewer than all steps it adds some after the last one."""
    draws = iter([noise() for _ in range(steps)])
    for module in ("schedulers.scheduling_ddpm", "pipelines.ddpm.pipeline_ddpm", "pipelines.ddim.pipeline_ddim"):
        monkeypatch.setattr(
            f"diffusers.{module}.randn_tensor", lambda shape, **_: next(draws, torch.zeros(1)).expand(shape)
        )
    return lambda: next(draws)


def noise_of(model, seed=1):
    return ImageNoise(seed, range(2), (3, model.image_size, model.image_size), model.device)


@pytest.mark.parametrize("recipe", NETWORKS.values(), ids=NETWORKS)
@torch.inference_mode()
def test_whole_runs_agree_with_shared_noise(monkeypatch, both, recipe):
    model, folder = both(*recipe)
    pipeline = DDPMPipeline.from_pretrained(folder)
    labels = labels_of(model, 2)
    schedulers = {"ddpm": pipeline.scheduler, "ddim": DDIMScheduler.from_config(pipeline.scheduler.config)}
    for sampler, options in {"ddpm": {}, "ddim": {"use_clipped_model_output": True}}.items():
        ours = generate(model, sampler, 20, noise_of(model), labels)
        shared = share(monkeypatch, noise_of(model), 20)
        theirs = generate_with_diffusers(pipeline, schedulers[sampler], 20, shared, labels, **options)
        assert ours.std() > 0.1
        assert (ours - theirs).abs().max() < 1e-4, sampler


@pytest.mark.parametrize("recipe", UNCONDITIONAL.values(), ids=UNCONDITIONAL)
@pytest.mark.parametrize(("timesteps", "steps"), [(1000, 10), (25, 25)])
def test_their_pipelines_generate_our_images(monkeypatch, both, recipe, timesteps, steps):
    """Called as the model card says it, in some of the steps and in all."""
    model, folder = both(*recipe, timesteps=timesteps)
    learned = model.diffusion.variance == "learned"
    runs = [(DDPMPipeline, {"sampler": "ddpm", "variance": "learned" if learned else "small"}, {})]
    if not learned:
        runs.append((DDIMPipeline, {"sampler": "ddim"}, {"use_clipped_model_output": True}))
    for pipeline, our_options, their_options in runs:
        *_, ours = model.trajectory(range(2), steps=steps, seed=4, **our_options)
        loaded = pipeline.from_pretrained(folder)
        loaded.set_progress_bar_config(disable=True)
        share(monkeypatch, noise_of(model, seed=4), steps)
        theirs = loaded(batch_size=2, num_inference_steps=steps, output_type="pt", **their_options).images
        assert theirs.shape == (2, 3, model.image_size, model.image_size)
        assert (ours.clamp(-1, 1) - (2 * theirs - 1)).abs().max() < 1e-4


@pytest.mark.slow
@pytest.mark.parametrize(("schedule", "target", "bound"), [("linear", "eps", 1e-4), ("cosine", "v", 1e-3)])
@torch.inference_mode()
def test_all_steps_agree_and_what_differs_is_their_float32(monkeypatch, both, schedule, target, bound):
    model, folder = both(schedule, target, "fixed", 16, {"channel_mults": [1], "attention": [16]})
    pipeline = DDPMPipeline.from_pretrained(folder)
    ours = generate(model, "ddpm", 1000, noise_of(model), None)
    betas = torch.tensor(pipeline.scheduler.config.trained_betas, dtype=torch.float64)
    for levels, tolerance in ((pipeline.scheduler.alphas_cumprod, bound), ((1 - betas).cumprod(0), 1e-5)):
        pipeline.scheduler.alphas_cumprod = levels
        shared = share(monkeypatch, noise_of(model), 1000)
        theirs = generate_with_diffusers(pipeline, pipeline.scheduler, 1000, shared, None)
        assert (ours - theirs).abs().max() < tolerance


@pytest.mark.parametrize("schedule", ["linear", "cosine", "sigmoid"])
def test_the_schedule_is_ours_to_float32(both, schedule):
    model, folder = both(schedule)
    theirs = DDPMScheduler.from_pretrained(folder / "scheduler")
    assert torch.allclose(theirs.alphas_cumprod.double(), model.diffusion.alphas_cumprod, rtol=3e-4, atol=1e-7)


def test_the_committed_recipe_exports(tmp_path, monkeypatch, config):
    """At a quarter of its width, with heads as narrow in proportion."""
    changes = config.model.model_dump() | {"channels": 32, "head_channels": 16}
    folder = write_model(tmp_path / "models", "linear", "eps", "fixed", config.data.image_size, changes)
    export(monkeypatch, "--model", folder, tmp_path / "exported")
    loaded = DDPMPipeline.from_pretrained(tmp_path / "exported")
    assert loaded.unet.config.sample_size == 64 and loaded.unet.config.block_out_channels == [32, 64, 64, 64]
    full = loaded.unet.config | {"block_out_channels": [128, 256, 256, 256], "attention_head_dim": 64}
    ours = UNet(config.model, config.data.image_size)
    assert count_parameters(type(loaded.unet).from_config(full)) == count_parameters(ours)


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"channel_mults": [2, 2]}, r"model\.channel_mults: found \[2, 2\]"),
        ({"channel_mults": [1, 4], "attention": [16, 8], "head_channels": 16}, r"model\.head_channels: found 16"),
    ],
)
def test_what_diffusers_cannot_express_is_refused_by_name(tmp_path, monkeypatch, capsys, changes, name):
    folder = write_model(tmp_path / "models", changes=changes)
    with pytest.raises(SystemExit) as ended:
        export(monkeypatch, "--model", folder, tmp_path / "exported")
    assert ended.value.code == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("error: model.") and complaint.count("\n") == 1
    assert re.search(name, complaint)
    assert not (tmp_path / "exported").exists()


def contents(folder):
    return {file.relative_to(folder).as_posix(): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def test_exporting_twice_gives_the_same_bytes_and_takes_an_older_export_s_place(tmp_path, monkeypatch):
    folder = write_model(tmp_path / "models")
    for name in ("a", "b", "b"):
        export(monkeypatch, "--model", folder, tmp_path / name)
    assert contents(tmp_path / "a") == contents(tmp_path / "b") and len(contents(tmp_path / "a")) == 5
    export(monkeypatch, "--model", write_model(tmp_path / "other", "cosine"), tmp_path / "b")
    changed = contents(tmp_path / "b")
    assert {name for name, content in contents(tmp_path / "a").items() if content != changed[name]} == {
        "README.md", "scheduler/scheduler_config.json", "unet/diffusion_pytorch_model.safetensors",
    }  # fmt: skip


def test_a_folder_of_something_else_is_left_alone(tmp_path, monkeypatch, capsys):
    folder = write_model(tmp_path / "models")
    before = contents(folder)
    with pytest.raises(SystemExit) as ended:
        export(monkeypatch, "--model", folder, folder)
    assert ended.value.code == 2 and "name a new or an empty folder" in capsys.readouterr().err
    assert contents(folder) == before


def test_the_command_wants_no_diffusers(tmp_path):
    write_model(tmp_path / "models")
    code = "import sys; sys.modules['diffusers'] = None; from ddpm.__main__ import main; main()"
    command = [sys.executable, "-c", code, "export", "--model"]
    done = subprocess.run(
        [*command, tmp_path / "models", tmp_path / "out"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "") and (tmp_path / "out/README.md").exists()


def test_a_folder_without_a_model_is_refused(tmp_path, monkeypatch, capsys):
    with pytest.raises(SystemExit) as ended:
        export(monkeypatch, "--model", tmp_path, tmp_path / "exported")
    assert ended.value.code == 2
    assert capsys.readouterr().err.startswith(f"error: {tmp_path}: no model can be read here")


def test_the_dropout_of_the_training_is_exported():
    model = ModelConfig(
        channels=8, channel_mults=[1], blocks=1, attention=[], head_channels=8, dropout=0.3, conditional=False
    )
    config = unet_config(UNet(model, 8).state_dict(), {"model": model.model_dump(), "image_size": 8})
    assert config["dropout"] == 0.3
