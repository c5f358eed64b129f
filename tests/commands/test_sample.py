"""`python -m ddpm sample`, as a user types it."""

import subprocess
import sys
from functools import partial

import numpy as np
import pytest
from PIL import Image

from ddpm import load_model
from ddpm.data.pictures import enlarge, grid
from tests.support import ROOT
from tests.support.networks import write_model


@pytest.fixture
def folder(tmp_path, tiny_model, monkeypatch):
    """A conditional model in `models` of the working directory."""
    monkeypatch.chdir(tmp_path)
    return write_model(tmp_path / "models", tiny_model, conditional=True)


@pytest.fixture
def sample(folder, command):
    """Run the command with these options; returns its exit code, and what it printed."""
    return partial(command, "sample", "--device", "cpu", "--steps", 3)


def read(path):
    return np.array(Image.open(path))


def test_writes_a_grid_of_the_images_that_the_model_gives(sample, folder):
    code, printed = sample("--n", 5, "--class", "ROSE", "--guidance", 2, "--seed", 4, "--out", "new/folder/roses.png")
    assert code == 0
    assert printed.startswith("Generated 5 images in ") and printed.endswith(" images/s): new/folder/roses.png\n")
    images = load_model(folder, device="cpu").sample(
        5, steps=3, seed=4, sampler="dpmpp_2m_sde", spacing="trailing", label="rose", guidance=2.0
    )
    assert np.array_equal(read("new/folder/roses.png"), grid(enlarge(images), columns=3))


def test_options_reach_the_model_and_pixels_are_written_as_they_are(sample, folder):
    code, _ = sample("--n", 3, "--sampler", "ddim", "--spacing", "uniform", "--batch-size", 2, "--out", "a.npy")
    images = load_model(folder, device="cpu").sample(3, steps=3, sampler="ddim", spacing="uniform", batch_size=2)
    assert code == 0 and np.array_equal(np.load("a.npy"), images)


def test_sixteen_images_are_generated_unless_told_otherwise(sample):
    assert sample()[0] == 0
    assert read("flowers.png").shape == (4 * 64 + 3 * 2, 4 * 64 + 3 * 2, 3)


def test_each_class_gets_one_image(sample, folder, monkeypatch):
    monkeypatch.setattr("ddpm.commands.sample.GIF_IMAGES", 2)  # fewer than classes, as with Flowers-102
    assert sample("--each-class", "--out", "each.npy", "--gif", "each.gif")[0] == 0
    images = np.load("each.npy")
    model = load_model(folder, device="cpu")
    for place, name in enumerate(["rose", "tulip", "Sunflower"]):
        alone = model.sample(1, first=place, steps=3, sampler="dpmpp_2m_sde", spacing="trailing", label=name)
        assert np.abs(images[place].astype(int) - alone[0]).max() <= 1
    assert len(images) == 3
    assert Image.open("each.gif").size == (2 * 64 + 2, 64)


def test_a_gif_leads_from_noise_to_the_images_in_the_same_bytes(sample, tmp_path):
    for name in ("a", "b"):
        code, printed = sample("--n", 20, "--class", 3, "--steps", 5, "--out", f"{name}.npy", "--gif", f"{name}.gif")
        assert code == 0 and printed.endswith(f": {name}.npy and {name}.gif\n")
    assert (tmp_path / "a.gif").read_bytes() == (tmp_path / "b.gif").read_bytes()
    still = grid(enlarge(np.load("a.npy")[:16]), columns=4).astype(float)
    gif, distances = Image.open("a.gif"), []
    assert gif.n_frames == 6 and gif.info["loop"] == 0
    for number in range(6):
        gif.seek(number)
        distances.append(np.abs(np.array(gif.convert("RGB")) - still).mean())
    assert distances[-1] < 10 < distances[0]  # not zero, because of the palette
    assert gif.info["duration"] > 1000  # time to look at the flowers


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--class", "sunflowr"], "class: found 'sunflowr', did you mean 'Sunflower'?"),
        (["--class", "4"], "class: found '4', choose a name such as 'rose', 'tulip', 'Sunflower', or a number from 1"),
        (["--out", "a.jpg"], "--out: found 'a.jpg', choose a name that ends in .png or .npy"),
        (["--out", "flowers"], "--out: found 'flowers', choose a name that ends in .png or .npy"),
        (["--gif", "a.png"], "--gif: found 'a.png', choose a name that ends in .gif"),
        (["--out", "models/config.json/a.png"], "models/config.json/a.png: cannot be written ("),
        (["--model", "nowhere"], "nowhere: no model can be read here"),
        (["--n", "0"], "n: found 0, choose 1 or more"),
        (["--steps", "0"], "steps: found 0, choose 1 to 1000"),
        (["--steps", "2000"], "steps: found 2000, choose 1 to 1000"),
        (["--guidance", "-1"], "guidance: found -1.0, choose 0 or more"),
        (["--seed", "-1"], "seed: found -1, choose 0 or more"),
        (["--batch-size", "0"], "batch_size: found 0, choose auto, or 1 or more"),
        (["--n", "3", "--each-class"], "--n: leave it out with --each-class"),
    ],
)
def test_wrong_input_is_told_in_one_sentence_with_exit_code_2(sample, options, sentence):
    code, printed = sample(*options)
    assert code == 2
    assert printed.startswith(f"error: {sentence}") and printed.count("\n") == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--sampler", "euler"], "invalid choice: 'euler' (choose from"),
        (["--batch-size", "many"], "argument --batch-size: found 'many', choose auto or a number"),
        (["--n", "x"], "argument --n: invalid int value: 'x'"),
        (["--class", "rose", "--each-class"], "argument --each-class: not allowed with argument --class"),
    ],
)
def test_a_mistyped_option_is_told_with_exit_code_2(sample, options, words):
    code, printed = sample(*options)
    assert code == 2 and words in printed


def test_a_folder_in_the_place_of_the_file_is_refused(sample, tmp_path):
    (tmp_path / "a.png").mkdir()
    assert sample("--out", "a.png") == (2, "error: --out: a.png is a folder; name a file in it\n")


@pytest.mark.parametrize("options", [["--class", "rose"], ["--each-class"], ["--guidance", "2"]])
def test_a_model_without_classes_says_so(sample, folder, tiny_model, options):
    write_model(folder, tiny_model, conditional=False)
    code, printed = sample(*options)
    assert code == 2 and printed.startswith("error: ") and "train one with model.conditional: true" in printed
    assert sample("--out", "a.npy")[0] == 0


def test_memory_that_does_not_suffice_is_told_with_exit_code_1(sample, monkeypatch):
    import torch

    from ddpm.network.unet import UNet

    def forward(*_):
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 1.00 GiB. GPU 0 has ...")

    monkeypatch.setattr(UNet, "forward", forward)
    code, printed = sample("--batch-size", 4)
    assert code == 1
    assert printed.endswith("set --batch-size 2, or leave it out to find what fits\n") and printed.count("\n") == 1


def run(*arguments):
    command = [sys.executable, "-m", "ddpm", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_the_module_itself_runs(folder, tmp_path):
    options = ["--model", str(folder), "--device", "cpu", "--n", "2", "--steps", "2", "--out", str(tmp_path / "a.png")]
    done = run("sample", *options)
    assert done.returncode == 0 and done.stdout.startswith("Generated 2 images") and (tmp_path / "a.png").exists()
    done = run("sample", *options, "--class", "violet")
    assert (done.returncode, done.stdout) == (2, "") and done.stderr.startswith("error: class: found 'violet'")


def test_help_names_the_choices_without_importing_what_does_the_work():
    code = (
        "import sys\nsys.argv = ['ddpm', 'sample', '--help']\nfrom ddpm.__main__ import main\n"
        "try:\n    main()\nfinally:\n    print([m for m in ('torch', 'mlflow', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert "{ddpm,ddim,dpmpp_2m,dpmpp_2m_sde}" in done.stdout and "(default: trailing)" in done.stdout
    assert done.stdout.endswith("[]\n")
    assert "sample" in run("--help").stdout and "sync" in run("--help").stdout
