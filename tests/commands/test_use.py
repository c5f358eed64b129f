"""`python -m ddpm use`: recipes and folders of photographs in params.yaml."""

import shutil
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from ddpm.__main__ import main
from ddpm.commands import photographs
from ddpm.commands.use import names, recipe
from ddpm.config import flatten, load_config

ROOT = Path(__file__).resolve().parents[2]
COMMITTED = (ROOT / "params.yaml").read_text(encoding="utf-8")


@pytest.fixture
def use(tmp_path, monkeypatch):
    """The command, in a folder with params.yaml and recipes/."""
    shutil.copytree(ROOT / "recipes", tmp_path / "recipes")
    shutil.copy(ROOT / "params.yaml", tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(photographs, "forecast", lambda _config, _images: "It will take a while.")

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["ddpm", "use", *arguments])
        main()
        return Path("params.yaml").read_text(encoding="utf-8")

    return run


def photograph(folder):
    """A folder with one."""
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (9, 9)).save(folder / "one.png")
    return folder


def test_a_folder_is_described_before_anything_runs(use, tmp_path, capsys):
    use("--photos", str(photograph(tmp_path / "Blüten")))
    printed = capsys.readouterr().out
    assert "data.path: null → Blüten\n" in printed and "1 images in one class" in printed
    assert printed.endswith("It will take a while.\n")


def test_a_folder_without_photographs_is_refused_and_nothing_is_written(use, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    with pytest.raises(SystemExit) as ended:
        use("--photos", str(tmp_path / "empty"))
    assert ended.value.code == 2 and "empty holds no image; put photographs there" in capsys.readouterr().err
    assert Path("params.yaml").read_text(encoding="utf-8") == COMMITTED


def comments(text):
    return [line.split("#", 1)[1] for line in text.splitlines() if "#" in line]


@pytest.mark.parametrize("name", names())
def test_a_recipe_is_written_whole_and_leaves_comments_and_the_rest(use, name):
    text = use(name)
    found, before = flatten(yaml.safe_load(text)), flatten(yaml.safe_load(COMMITTED))
    wanted = flatten(yaml.safe_load((ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")))
    assert found == before | wanted
    assert comments(text) == comments(COMMITTED)
    load_config()


def test_a_file_of_an_earlier_version_gets_what_it_lacks(use, capsys):
    lines = [line for line in COMMITTED.splitlines(keepends=True) if not line.startswith(("  lr_decay:", "  patch:"))]
    Path("params.yaml").write_text("".join(lines), encoding="utf-8")
    use("cpu-10h")
    printed = capsys.readouterr().out
    assert "train.lr_decay: 0.0 → 0.2\n" in printed and "model.patch: 1 → 2\n" in printed
    config = load_config()
    assert config.train.lr_decay == 0.2 and config.model.patch == 2


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("train: {lrr: 1.0}", "train.lrr: unknown key"),
        ("trian: {lr: 1.0}", "trian: unknown key"),
        ("epochs: {x: 1}", "epochs.x: unknown key"),
        ("a: [", "recipes/mine.yaml: cannot be read as YAML"),
        ("seed: 1\nseed: 2", "recipes/mine.yaml: seed is given in line 2 and again in line 3"),
        ("", "recipes/mine.yaml: names no parameters"),
        ("- seed", "recipes/mine.yaml: names no parameters"),
    ],
)
def test_a_faulty_recipe_is_refused_in_a_sentence_and_nothing_is_written(use, capsys, text, fault):
    Path("recipes/mine.yaml").write_text(f"# My own.\n{text}\n", encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        use("mine")
    assert ended.value.code == 2 and fault in capsys.readouterr().err
    assert Path("params.yaml").read_text(encoding="utf-8") == COMMITTED


def test_the_full_recipe_goes_back_from_any_other_to_the_last_byte(use):
    for name in names():
        use(name)
    assert use("full") == COMMITTED


def test_one_recipe_leaves_nothing_of_another(use):
    direct = use("gpu-12gb")
    use("full")
    use("cpu-10h")
    assert use("gpu-12gb") == direct


def test_recipes_hold_only_what_differs_and_say_what_they_cost():
    committed = flatten(yaml.safe_load(COMMITTED))
    changed = set()
    for name in set(names()) - {"full"}:
        wanted = flatten(recipe(name))
        assert all(committed[key] != value for key, value in wanted.items() if key != "model.attention"), name
        assert "# Cost: " in (ROOT / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
        changed |= wanted.keys()
    full = flatten(recipe("full"))
    assert full.keys() == changed
    assert full.items() <= committed.items()


def test_own_settings_stay_what_they_are(use):
    Path("params.yaml").write_text(COMMITTED.replace("seed: 0 ", "seed: 7 ", 1), encoding="utf-8")
    use("cpu-1h")
    assert load_config().seed == 7


@pytest.mark.parametrize(
    "name", ["with spaces", "a,b [c] {d}", 'it\'s "so"', "Blumen für Ärzte", "#no: comment", "100%", "007"]
)
def test_a_folder_of_any_name_is_read_as_it_is_written(use, tmp_path, name):
    photograph(tmp_path / name)
    text = use("--photos", str(tmp_path / name))
    config = load_config()
    assert (config.data.source, config.data.path) == ("folder", name)
    assert comments(text)[-1] == comments(COMMITTED)[-1]


def test_a_folder_elsewhere_is_named_in_full(use, tmp_path_factory):
    elsewhere = photograph(tmp_path_factory.mktemp("photos"))
    use("--photos", str(elsewhere))
    assert load_config().data.path == str(elsewhere.resolve())


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["cpu-1"], "recipes: holds no recipe 'cpu-1'; choose cpu-10h, cpu-1h, full, gpu-12gb, gpu-30min"),
        (["--photos", "nowhere"], "--photos: nowhere is no folder; name the one that holds the photographs"),
    ],
)
def test_what_is_not_there_is_named_and_nothing_is_written(use, capsys, arguments, sentence):
    with pytest.raises(SystemExit) as ended:
        use(*arguments)
    assert ended.value.code == 2 and sentence in capsys.readouterr().err
    assert Path("params.yaml").read_text(encoding="utf-8") == COMMITTED


def test_what_does_not_go_together_is_refused_and_nothing_is_written(use, capsys):
    own = COMMITTED.replace("timesteps: 1000 ", "timesteps: 10   ", 1).replace("steps: 100 ", "steps: 10  ", 1)
    Path("params.yaml").write_text(own, encoding="utf-8")
    with pytest.raises(SystemExit) as ended:
        use("cpu-1h")
    assert ended.value.code == 2 and "params.yaml with these changes: sample.steps" in capsys.readouterr().err
    assert Path("params.yaml").read_text(encoding="utf-8") == own


def test_without_a_name_the_recipes_are_listed(use, capsys):
    assert use() == COMMITTED
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == names()
