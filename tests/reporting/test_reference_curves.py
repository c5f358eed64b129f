"""Whether a training is on track: against which curve it is judged, and in which words."""

import json

import pandas as pd
import pytest

from benchmarks.quality.reference_curves import described
from ddpm.commands.use import names, recipe, write
from ddpm.config import flatten, load_config
from ddpm.reporting.reference_curves import FILE, OnTrack, Reference, recipe_of, watched
from ddpm.runtime.errors import InputError
from tests.support import ROOT

CURVE = pd.DataFrame(
    {
        "images": [500, 1000, 10_000, 100_000],
        "heldout_loss": [None, 0.3, 0.2, 0.1],
        "quick_fid_inception": [200.0, None, 90.0, 50.0],
    }
)
REFERENCE = Reference("slow", "photographs", CURVE)


@pytest.fixture
def about(config):
    """The description of a model that was trained on Flowers-102 with params.yaml."""
    data = {
        "source": "flowers102",
        "splits": ["test", "train", "val"],
        "images": 90,
        "heldout_images": 10,
        "seed": 5,
        "steps": 40,
    }
    description = described(config)
    return description | {"training": description["training"] | data}


@pytest.fixture
def file(tmp_path, monkeypatch, about):
    """The curve of params.yaml, named slow, and one that resembles it less, where both are read."""
    monkeypatch.chdir(tmp_path)
    FILE.parent.mkdir(parents=True)
    entries = {
        name: {"data": "photographs", "images": 2560, "recipe": recipe_of(about) | changes}
        for name, changes in (("other", {"model": {"channels": 1}}), ("slow", {}))
    }
    FILE.with_suffix(".json").write_text(json.dumps(entries))
    rows = pd.concat([CURVE.assign(recipe="slow"), CURVE.assign(recipe="other", heldout_loss=9.0)])
    rows.to_csv(FILE, index=False)
    return FILE


def test_between_two_points_the_curve_is_a_line_in_the_logarithm_of_the_images():
    assert REFERENCE.at(10_000) == pytest.approx(0.2)
    assert REFERENCE.at(31_623) == pytest.approx(0.15, abs=1e-5)


@pytest.mark.parametrize("images", [999, 100_001])
def test_beyond_what_was_measured_nothing_is_said(images):
    assert REFERENCE.at(images) is REFERENCE.verdict(images, 0.2) is None


def test_points_that_were_not_measured_are_left_out():
    assert REFERENCE.at(500) is None
    assert REFERENCE.at(31_623, "quick_fid_inception") == pytest.approx(70, abs=0.01)
    assert 90 < REFERENCE.at(1000, "quick_fid_inception") < 200
    assert REFERENCE.at(31_623, "quick_fid_other") is None


@pytest.mark.parametrize(
    ("loss", "standing"),
    [
        (0.1501, "on track"),
        (0.157, "on track"),
        (0.143, "on track"),
        (0.142, "ahead"),
        (0.158, "behind, it was as good after 100,000"),
        (0.25, "behind, it was as good after 10,000"),
        (0.31, "behind, it was better after 1,000"),
    ],
)
def test_a_loss_is_judged_by_the_curve_within_five_percent(loss, standing):
    sentence = f"Held-out loss {loss:.3f} at 31,623 images; the reference (slow) had 0.150: {standing}."
    assert REFERENCE.verdict(31_623, loss) == sentence


@pytest.mark.parametrize(("heldout", "differs"), [(11, ()), (9, ()), (50, ("`data.holdout` 0.5 (0.1)",))])
def test_fewer_images_to_learn_from_make_another_recipe(about, file, heldout, differs):
    split = {"images": 100 - heldout, "heldout_images": heldout}
    assert Reference.of(about | {"training": about["training"] | split}).differs == differs


def test_neither_seed_nor_cost_nor_length_makes_another_recipe(about, file):
    training = about["training"]
    other = {"accumulate": 4, "compile": "true", "precision": "bf16", "log_every": 7, "checkpoint_activations": True}
    assert training["train"].keys() >= other.keys()
    changed = about | {"training": training | {"epochs": 3, "seed": 1, "train": training["train"] | other}}
    for description in (about, changed):
        found = Reference.of(description)
        assert (found.name, found.differs) == ("slow", ())
        pd.testing.assert_frame_equal(found.curve[CURVE.columns], CURVE, check_index_type=False)


@pytest.mark.parametrize("lever", ["lr_decay", "ema_length"])
def test_a_training_that_goes_by_its_end_has_a_curve_for_each_length(about, lever):
    train = about["training"]["train"] | {lever: 0.2}
    short, long = (about | {"training": about["training"] | {"epochs": n, "train": train}} for n in (3, 4))
    assert recipe_of(short) != recipe_of(long)


def test_trainings_that_fall_towards_their_end_are_compared_at_the_same_part_of_it(about, file):
    entries = json.loads(FILE.with_suffix(".json").read_text())
    entries["slow"]["recipe"] |= {"epochs": 700, "train": entries["slow"]["recipe"]["train"] | {"lr_decay": 0.2}}
    FILE.with_suffix(".json").write_text(json.dumps(entries))
    training = about["training"] | {"train": about["training"]["train"] | {"lr_decay": 0.2}}
    found = Reference.of(about | {"training": training})
    assert found.differs == () and found.stretch == 2  # 40 steps of 128 images, twice the 2,560 of the reference
    assert found.verdict(20_000, 0.2) == (
        "Held-out loss 0.200 at 20,000 images; the reference (slow) had 0.200 after the same part of its training: "
        "on track."
    )
    assert found.verdict(1998, 0.3) is None and found.verdict(200_000, 0.1)
    assert found.drawn(training | {"images": 1000})[1]["epoch"].tolist() == [2, 20, 200]


def test_what_differs_is_named_and_nothing_is_judged(about, file):
    training = about["training"]
    changed = training | {"source": "folder", "splits": None, "train": training["train"] | {"lr": 0.5}}
    found = Reference.of(about | {"training": changed})
    assert found.differs == ("its images (`folder`)", "`train.lr` 0.5 (0.0002)")
    assert found.verdict(10_000, 0.2) is None
    words = found.paragraph(changed, 0.2)
    assert words.startswith(
        "The dashed curve is the held-out loss of recipe slow on photographs, for orientation alone"
    )
    assert words.endswith("in its images (`folder`), `train.lr` 0.5 (0.0002).")


def test_a_part_of_the_flowers_is_other_data(about, file):
    part = about | {"training": about["training"] | {"splits": ["train"]}}
    assert Reference.of(part).differs == ("its images (`flowers102`)",)


@pytest.mark.parametrize("change", [{"schedule": "cosine"}, {"image_size": 32}, {"diffusion": {"target": "v"}}])
def test_losses_of_another_kind_are_beside_no_curve(about, file, change):
    assert Reference.of(about | change) is None


def test_without_the_file_there_is_no_reference(about, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert Reference.of(about) is None


@pytest.mark.parametrize("suffix", [".csv", ".json"])
@pytest.mark.parametrize("content", ["", "[1]", "a,b\n1,2\n"])
def test_a_damaged_file_is_named_with_the_remedy(about, file, suffix, content):
    file.with_suffix(suffix).write_text(content)
    with pytest.raises(
        InputError, match=r"reference_curves.csv: cannot be read \(.*\); run `git checkout reports/benchmarks`"
    ):
        Reference.of(about)


class Tracker:
    def __init__(self):
        self.taken = []

    def metrics(self, metrics, step):
        self.taken.append((metrics, step))

    def image(self, key, image, step):
        self.taken.append((key, image, step))


def test_curves_are_passed_on_and_a_tenth_of_them_is_judged(capsys):
    tracker = Tracker()
    watch = OnTrack(tracker, REFERENCE, "inception", batch_size=1000, steps=100)
    points = [({"heldout/loss": 0.2}, step) for step in range(1, 101)] + [({"train/loss": 1.0}, 100)]
    for point in points:
        watch.metrics(*point)
    watch.image("samples", "an image", 3)
    assert tracker.taken == [*points, ("samples", "an image", 3)]
    said = capsys.readouterr().out.splitlines()
    assert [line.split(" at ")[1].split(" images")[0] for line in said] == [
        *(f"{tenth}1,000" if tenth else "1,000" for tenth in range(10)),
        "100,000",
    ]


def test_quick_scores_stand_beside_those_of_the_same_extractor(capsys):
    for extractor in ("inception", "efficientnet_lite0"):
        OnTrack(Tracker(), REFERENCE, extractor, batch_size=1000, steps=100).metrics({"quick/fid": 61.7}, 10)
    assert capsys.readouterr().out == "Quick FID 62 at 10,000 images; the reference had 90.\n"


def test_a_training_of_the_same_recipe_is_watched_and_no_other(about, file, capsys):
    tracker, steps = Tracker(), 10_000 // about["training"]["train"]["batch_size"]
    watched(tracker, about, "inception").metrics({"heldout/loss": 0.3}, steps)
    assert "0.300 at 9,984 images; the reference (slow) had 0.200: behind" in capsys.readouterr().out
    other = about | {"training": about["training"] | {"source": "folder"}}
    assert watched(tracker, other, "inception") is tracker
    assert watched(tracker, about | {"image_size": 32}, "inception") is tracker


def test_the_report_judges_the_whole_training(about):
    training = about["training"] | {"steps": 400}
    words = REFERENCE.paragraph(training, 0.13)
    assert "0.130 at 51,200 images" in words and words.endswith("on photographs; two seeds differ by up to 3.3 %.")
    assert "no point after as many images" in REFERENCE.paragraph(training | {"steps": 4000}, 0.13)


def test_the_curve_is_drawn_over_the_epochs_of_the_training():
    name, points = REFERENCE.drawn({"images": 1000, "epochs": 20})
    assert name == "held-out images, reference slow"
    assert points["epoch"].tolist() == [1, 10] and points["loss"].tolist() == [0.3, 0.2]


def test_each_committed_curve_is_of_a_recipe_as_it_stands(tmp_path):
    """Who follows a recipe to the letter is judged."""
    entries = json.loads((ROOT / FILE).with_suffix(".json").read_text(encoding="utf-8"))
    curves = pd.read_csv(ROOT / FILE)
    assert set(curves["recipe"]) == entries.keys() <= set(names())
    for name, entry in entries.items():
        params = tmp_path / "params.yaml"
        params.write_text((ROOT / "params.yaml").read_text(encoding="utf-8"), encoding="utf-8")
        write(params, flatten(recipe(name)))
        assert recipe_of(described(load_config(params))) == entry["recipe"]
        assert curves.loc[curves["recipe"] == name, "images"].is_monotonic_increasing
