"""Which runs are compared, what is marked as the best, and what becomes of names and pictures."""

import functools
import html
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
from markdown_it import MarkdownIt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from scipy import stats

from ddpm.data.pictures import grid, save_png
from ddpm.reporting.comparison import plots
from ddpm.reporting.comparison.cells import cells, marks, newest, protocols, settings, tables, tidy
from ddpm.reporting.comparison.findings import findings, sweep
from ddpm.reporting.comparison.markdown import REAL, fid_table, other_scores
from ddpm.reporting.comparison.names import label
from ddpm.reporting.report import plain

PROTOCOL = {
    "extractor": "inception",
    "tags.weights.sha256": "b" * 64,
    "tags.data.sha256": "d" * 64,
    "params.fid.reference": "all",
    "params.sample.n": "10000",
}


def scored(*runs: dict[str, object]) -> pd.DataFrame:
    """Runs as `scored_runs` gives them, newest first, with these columns instead of the usual ones."""
    rows = []
    for number, changes in enumerate(runs):
        run = PROTOCOL | {
            "run_id": f"run {number}",
            "training": f"run {number}",
            "start_time": pd.Timestamp("2026-01-01", tz="UTC") - pd.Timedelta(minutes=number),
            "params.schedule": "linear",
            "params.epochs": "300",
            "params.seed": "0",
            "params.data.holdout": "0.1",
            "params.sample.sampler": "ddim",
            "params.sample.steps": "100",
            "params.train.lr": "0.0002",
            "tags.device": "CPU",
            "metrics.seconds/train": 1800.0,
        }
        run |= changes
        fid = run.pop("fid", 10.0)
        value, low, high = fid if isinstance(fid, tuple) else (fid, fid - 1, fid + 1)
        name = f"metrics.{run['extractor']}/fid"
        rows.append(run | {name: value, f"{name}_low": low, f"{name}_high": high})
    return tidy(pd.DataFrame(rows))


@pytest.mark.parametrize(
    "other",
    [
        {"extractor": "efficientnet_lite0"},
        {"tags.weights.sha256": "c" * 64},
        {"tags.data.sha256": "e" * 64},
        {"params.fid.reference": "heldout"},
        {"params.sample.n": "9999"},
    ],
)
def test_runs_of_different_protocols_never_meet(other: dict[str, object]) -> None:
    found = protocols(scored({}, other, {"params.epochs": "700"}))
    assert [list(group["run_id"]) for group in found] == [["run 0", "run 2"], ["run 1"]]


def test_a_held_out_part_of_another_size_is_another_reference() -> None:
    smaller = {"params.data.holdout": "0.2"}
    heldout = {"params.fid.reference": "heldout"}
    assert len(protocols(scored(heldout, heldout | smaller))) == 2
    (group,) = protocols(scored({}, smaller))  # all real images are the same ones
    assert len(tables(cells(group), settings(group))) == 2  # but fewer of them trained the model


@pytest.mark.parametrize("missing", [*list(PROTOCOL)[1:], "params.schedule", "params.epochs"])
def test_a_run_that_does_not_tell_its_protocol_is_left_out(missing: str) -> None:
    assert list(scored({}, {missing: None})["run_id"]) == ["run 0"]


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([(10, 9, 11), (13, 12, 14), (20, 19, 21)], ["best", "", ""]),
        ([(13, 12, 14), (10, 9, 11), (11.5, 10.9, 12.1)], ["", "tied", "tied"]),  # the third overlaps both others
        ([(10, 9, 11), (12, 11, 13)], ["tied", "tied"]),  # they touch
        ([(10, 9, 11), (30, 8, 60)], ["tied", "tied"]),  # a wide interval reaches below the best
        ([(10, np.nan, np.nan), (30, 29, 31)], ["tied", "tied"]),  # nothing is known of its chance
        ([(10, 9, 11), (30, np.nan, np.nan), (40, 39, 41)], ["tied", "tied", ""]),
        ([(10, 9, 11)], [""]),
    ],
)
def test_the_best_is_marked_only_where_the_intervals_allow(
    scores: list[tuple[float, float, float]], expected: list[str]
) -> None:
    assert marks(pd.DataFrame(scores, columns=["fid", "fid_low", "fid_high"])) == expected


def test_the_table_shows_the_mark_of_each_cell_and_gaps() -> None:
    runs = scored(
        {"fid": (10, 9, 11), "params.schedule": "cosine"},
        {"fid": (13, 12, 14)},
        {"fid": (20, 19, 21), "params.epochs": "1000"},
    )
    assert fid_table(cells(runs)).splitlines() == [
        "| FID | 300 epochs | 1000 epochs |",
        "| --- | --- | --- |",
        "| cosine | **10.00 (9.00 to 11.00)** | – |",
        "| linear | 13.00 (12.00 to 14.00) | 20.00 (19.00 to 21.00) |",
    ]


def test_seeds_are_averaged_with_the_spread_between_them() -> None:
    fids = (10.0, 12.0, 14.0)
    runs = scored(*({"fid": (fid, fid - 0.1, fid + 0.1), "params.seed": str(seed)} for seed, fid in enumerate(fids)))
    (cell,) = cells(runs).to_dict("records")
    half = 4.302652729911275 * 2 / 3**0.5  # t(0.975) with 2 degrees of freedom; standard deviation 2
    assert cell["seeds"] == 3
    assert [cell[name] for name in ("fid", "fid_low", "fid_high")] == pytest.approx([12, 12 - half, 12 + half])
    assert "12.00 (7.03 to 16.97), 3 seeds" in fid_table(cells(runs))


def test_a_repetition_is_no_further_seed_and_the_newest_counts() -> None:
    runs = scored({"fid": 10.0}, {"fid": 12.0}, {"fid": 14.0, "params.seed": "1"})
    assert set(newest(runs)["run_id"]) == {"run 0", "run 2"}
    (cell,) = cells(runs).to_dict("records")
    assert (cell["seeds"], cell["fid"]) == (2, 12.0)


def test_each_setting_has_a_table_of_its_own_and_says_what_differs() -> None:
    lrs = [{"params.train.lr": lr} for lr in ("0.001", None)]
    runs = scored({}, {"params.epochs": "700"}, {"params.sample.steps": "20"}, *lrs)
    split = tables(cells(runs), settings(runs))
    assert settings(runs) == ["params.sample.steps", "params.train.lr"]
    assert [len(table) for table in split] == [2, 1, 1, 1]
    assert {label(table.to_dict("records")[0], settings(runs)) for table in split} == {
        "ddim 100 · train.lr 0.0002",
        "ddim 100 · train.lr 0.001",
        "ddim 100 · train.lr not recorded",
        "ddim 20 · train.lr 0.0002",
    }


def test_what_decides_no_score_splits_no_table() -> None:
    names = ("device", "fid.batch_size", "fid.every", "sample.batch_size", "tracking.experiment", "train.log_every")
    runs = scored({"params.seed": "1"}, {f"params.{name}": "another" for name in names})
    assert settings(runs) == [] and len(cells(runs)) == 1


HOSTILE = [
    "a | b",
    "<script>alert(1)</script>",
    "*bold* _it_ `code` ~~no~~ **",
    "[link](javascript:alert(1)) ![x](y)",
    "line\n\n# heading\n| --- |",
    "\\| \\` &lt; &amp; $x$",
    "dpmpp_2m __init__ _",
]


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_shown_as_they_are(name: str) -> None:
    text = plain(name)
    parser = MarkdownIt("gfm-like", {"html": True, "linkify": False})
    shown = html.escape(" ".join(name.split()), quote=True)
    for markdown, expected in (
        (f"Of {text}.", f"<p>Of {shown}.</p>"),
        (f"### At {text}", f"<h3>At {shown}</h3>"),
        (f"| a | b |\n|---|---|\n| {text} | end |", f"<td>{shown}</td>\n<td>end</td>"),
    ):
        assert expected.replace("&#x27;", "'") in parser.render(markdown)


def test_the_same_seeds_stand_below_each_other_pixel_by_pixel(tmp_path) -> None:
    rng = np.random.default_rng(0)
    rows = []
    for name in ("cosine", "linear"):
        images = rng.integers(0, 256, (64, 16, 16, 3), dtype=np.uint8)
        save_png(grid(images, columns=8), tmp_path / f"{name}.png")
        rows.append((name, tmp_path / f"{name}.png"))
    plots.save_same_seeds(rows, tmp_path / "rows.png")
    picture = np.array(Image.open(tmp_path / "rows.png"))
    for index, (_, path) in enumerate(rows):
        top = index * (16 + plots.TEXT + 2 * plots.MARGIN) + plots.TEXT + 2 * plots.MARGIN
        strip = picture[top : top + 16, plots.MARGIN : plots.MARGIN + 8 * 18 - 2]
        assert np.array_equal(strip, np.array(Image.open(path))[:16])


def test_figures_want_two_points(tmp_path) -> None:
    one = cells(scored({}))
    same_epochs = cells(scored({}, {"params.schedule": "cosine"}))
    assert not plots.save_by_epochs(one, {}, tmp_path / "a.png")
    assert not plots.save_by_epochs(same_epochs, {}, tmp_path / "a.png")
    assert not plots.save_by_hours(one, tmp_path / "a.png")
    unknown = cells(scored({}, {"params.epochs": "9", "metrics.seconds/train": None}))
    assert not plots.save_by_hours(unknown, tmp_path / "a.png")
    assert not list(tmp_path.iterdir())
    assert plots.save_by_hours(same_epochs, tmp_path / "hours.png") and (tmp_path / "hours.png").exists()


def test_the_last_row_of_the_other_scores_is_that_of_real_images() -> None:
    runs = [{"metrics.inception/coverage": 0.2, "metrics.inception/coverage_floor": floor} for floor in (0.5, 0.7)]
    rows = other_scores(cells(scored(runs[0], runs[1] | {"params.epochs": "9"})), []).splitlines()
    assert rows[0] == "| run | coverage | training |" and rows[-1] == f"| {REAL} | 0.60 | – |"
    assert REAL not in other_scores(cells(scored({})), [])


def drawn(monkeypatch: pytest.MonkeyPatch, draw: Callable[[], object]) -> list[Axes]:
    """The panels of the figure that is drawn."""
    figures: list[Figure] = []
    monkeypatch.setattr(plots, "save", lambda figure, path: figures.append(figure))
    draw()
    return figures[0].axes


def test_each_known_score_has_a_panel_with_its_points_and_the_score_of_photographs(monkeypatch, tmp_path) -> None:
    kid = {"metrics.inception/kid": 0.02, "metrics.inception/kid_low": 0.01, "metrics.inception/kid_high": 0.04}
    floor = {"metrics.inception/fid_floor": 5.0, "metrics.inception/kid_floor": 0.001}
    runs = [kid | floor | {"params.epochs": epochs, "params.sample.steps": epochs} for epochs in ("9", "18")]
    table = cells(scored(*runs))
    by_steps = functools.partial(plots.save_by_steps, [("ddim", table)], tmp_path)
    for draw in (functools.partial(plots.save_by_epochs, table, {}, tmp_path), by_steps):
        panels = drawn(monkeypatch, draw)
        assert [axes.get_ylabel()[:3] for axes in panels] == ["FID", "KID"]  # coverage is not known
        for axes, value, low, high, photographs in zip(panels, (10, 20), (9, 10), (11, 40), (5, 1), strict=True):
            points = axes.containers[0]
            assert points.lines[0].get_xydata().tolist() == [[9, value], [18, value]]
            assert np.allclose(points.lines[2][0].get_segments()[0], [[9, low], [9, high]])
            dashed = [line for line in axes.lines if line.get_label() == plots.FLOOR]
            assert [line.get_ydata() for line in dashed] == [[photographs] * 2]


def test_what_is_beyond_the_spread_of_seeds_is_told_and_what_is_not() -> None:
    fids = {
        ("cosine", "300"): (14.0, 14.2, 14.4),
        ("cosine", "700"): (12.0, 12.1, 12.5),
        ("linear", "700"): (12.4, 11.9, 13.1),
        ("sigmoid", "700"): (20.0,),
    }
    runs = scored(
        *(
            {"fid": fid, "params.schedule": schedule, "params.epochs": epochs, "params.seed": str(seed)}
            for (schedule, epochs), several in fids.items()
            for seed, fid in enumerate(several)
        )
    )
    (table,) = tables(cells(runs), settings(runs))
    several = {schedule if epochs == "700" else "short": each for (schedule, epochs), each in fids.items()}

    def games_howell(high, low):
        x, y = (np.array(several[name]) for name in (high, low))
        parts = [each.var(ddof=1) / len(each) for each in (x, y)]
        freedom = sum(parts) ** 2 / sum(part**2 / 2 for part in parts)  # Welch and Satterthwaite, 3 seeds each
        half = stats.studentized_range.ppf(0.95, 4, freedom) / 2**0.5 * sum(parts) ** 0.5  # of 4 settings
        return f"{x.mean() - y.mean() - half:.2f} to {x.mean() - y.mean() + half:.2f}"

    how = "over 3 and 3 seeds, for any two of 4 settings by Games and Howell"
    assert findings(table) == [
        "Lowest mean FID of 4 settings: cosine · 700 epochs, 12.20.",
        f"With as many epochs, linear is higher by 0.27 ({games_howell('linear', 'cosine')} {how}, so these seeds do "
        "not separate them).",
        "With as many epochs, sigmoid is higher by 7.80; with a single seed, it is not known whether another "
        "one would change that.",
        f"From 300 to 700 epochs, cosine gains 2.00 ({games_howell('short', 'cosine')} {how}).",
    ]
    assert sweep(table, settings(runs)) == (
        "dvc exp run --queue -S schedule=cosine,linear,sigmoid -S epochs=300,700 -S seed=0,1,2"
    )
    assert findings(table.head(1)) == []


def test_more_epochs_that_cost_are_told_as_such_and_other_parameters_are_in_the_command() -> None:
    longer = {"params.epochs": "900", "fid": 11.0, "params.train.lr": "0.001"}
    runs = scored({"params.train.lr": "0.001"}, longer, {"params.model.attention": "[16, 8]"})
    first = max(tables(cells(runs), settings(runs)), key=len)
    assert findings(first)[1].startswith("From 300 to 900 epochs, linear loses 1.00; with a single seed")
    assert sweep(first, settings(runs)).endswith("-S schedule=linear -S epochs=300,900 -S seed=0 -S train.lr=0.001")
