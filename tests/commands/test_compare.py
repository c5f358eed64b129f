"""`python -m ddpm compare`, on stores that were filled as the stages fill them."""

import shlex
import sqlite3
import uuid
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sqlalchemy import event
from sqlalchemy.engine import Engine

from ddpm.config import Config
from ddpm.tracking import finished
from tests.support.scored import record_scores, record_training, with_training
from tests.support.tracked import changed, client


@pytest.fixture
def compare(tmp_path: Path, command: Callable[..., tuple[int, str]]) -> Callable[..., tuple[int, str]]:
    """Run the command with these options, into `tmp_path`; returns its exit code, and what it printed."""
    return partial(command, "compare", "--out", tmp_path)


def table(tmp_path: Path) -> pd.DataFrame:
    return pd.read_csv(tmp_path / "comparison.csv")


def test_schedules_and_epochs_stand_side_by_side(tracked: Config, compare, tmp_path: Path) -> None:
    fids = {("linear", 300): 21.4, ("linear", 700): 14.9, ("cosine", 300): 13.8, ("cosine", 700): 12.1}
    for index, ((schedule, epochs), fid) in enumerate(fids.items()):
        config = with_training(tracked, schedule=schedule, epochs=epochs)
        key = record_training(config, seconds=10.0 * epochs)
        images = np.full((64, 16, 16, 3), 50 * index, np.uint8)
        record_scores(config, key, fid, images=images, folder=tmp_path / "images")
        if epochs == 700:
            record_scores(changed(config, "sample", steps=10), key, fid + 3)
    code, printed = compare("--experiment", tracked.tracking.experiment)
    assert (code, printed.splitlines()[-1]) == (
        0,
        f"Compared 6 runs: {tmp_path}/comparison.md, {tmp_path}/comparison.html, {tmp_path}/comparison.csv",
    )
    page = (tmp_path / "comparison.md").read_text()
    assert "| cosine | 13.80 (13.30 to 14.30) | **12.10 (11.60 to 12.60)** |" in page
    assert "| linear | 21.40 (20.90 to 21.90) | 14.90 (14.40 to 15.40) |" in page
    assert "floor: FID of real images as samples | 3.20; with as few images" in page and "sample.steps" in page
    pictures = {path.name for path in (tmp_path / "comparison").iterdir()}
    assert pictures == {f"protocol1-{name}.png" for name in ("epochs1", "hours", "seed", "steps1", "steps2")}
    assert all(f"comparison/{name}" in page for name in pictures)
    colours = np.array(Image.open(tmp_path / "comparison/protocol1-seed.png"))[:, 12, 0]
    assert {0, 50, 100, 150} <= set(colours.tolist())
    assert (tmp_path / "comparison.html").read_text().count("data:image/png;base64,") == len(pictures)

    runs = table(tmp_path)
    assert len(runs) == 6 and runs["compared"].all()
    children = runs[runs["params.sample.steps"] == 10]
    assert sorted(children["metrics.seconds/train"]) == [7000, 7000]  # noted on the run of the training alone
    assert set(children["tags.device"]) == {"NVIDIA H100"}
    assert sorted(children["name"]) == ["cosine · 700 epochs · ddim 10", "linear · 700 epochs · ddim 10"]


def test_a_study_has_a_name_of_its_own_its_findings_and_the_commands_that_repeat_it(
    tracked: Config, compare, tmp_path: Path
) -> None:
    for schedule, epochs, seed in ((s, e, n) for s in ("linear", "cosine") for e in (100, 300) for n in (0, 1)):
        config = with_training(tracked, schedule=schedule, epochs=epochs, seed=seed)
        record_scores(config, record_training(config), 20.0 - epochs / 50 + seed / 10 + len(schedule) / 100)
    condition = 'params.schedule != "```\n# evil"'
    assert compare("--experiment", tracked.tracking.experiment, "--name", "study", "--filter", condition)[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {"study", "study.md", "study.html", "study.csv"}
    page = (tmp_path / "study.md").read_text()
    assert "From 100 to 300 epochs, cosine gains 4.00 (" in page and "(study/protocol1-epochs1.png)" in page
    block = page.partition("### How to repeat it\n\n```sh\n")[2].partition("\n```\n")[0].splitlines()
    assert block[0] == "dvc exp run --queue -S schedule=cosine,linear -S epochs=100,300 -S seed=0,1"
    assert block[1] == "dvc queue start" and block[2].startswith(
        f"python -m ddpm compare --name study --experiment {shlex.quote(tracked.tracking.experiment)} --filter "
    )
    assert len(block) == 3 and "comparison.csv" not in page
    code, printed = compare("--name", "a/b")
    assert code == 2 and printed.startswith("error: --name: found 'a/b', choose letters")


def test_only_finished_runs_with_scores_are_gathered(tracked: Config, compare, tmp_path: Path) -> None:
    record_scores(tracked, record_training(tracked), 10.0)
    record_training(with_training(tracked, epochs=300))
    failed = with_training(tracked, epochs=100)
    run_id = record_scores(failed, record_training(failed), 9.0)
    client(Path.cwd()).set_terminated(run_id, "FAILED")
    assert compare("--experiment", tracked.tracking.experiment)[0] == 0
    assert list(table(tmp_path)["params.epochs"]) == [700]


def test_a_filter_in_the_language_of_mlflow_chooses_runs(tracked: Config, compare, tmp_path: Path) -> None:
    for schedule, device in (("linear", "CPU"), ("cosine", "CPU"), ("cosine", "NVIDIA H100")):
        config = with_training(tracked, schedule=schedule, seed=len(device))
        record_scores(config, record_training(config, device), 10.0)
    name = tracked.tracking.experiment
    assert (
        compare(
            "--experiment",
            name,
            "--filter",
            'params.schedule = "cosine" and tags.device LIKE "CP%" and params."train.lr" = "0.0002"',
        )[0]
        == 0
    )
    (run,) = table(tmp_path).to_dict("records")
    assert (run["params.schedule"], run["tags.device"]) == ("cosine", "CPU")
    assert compare("--experiment", name, "--filter", "metrics.`inception/fid` < 9") == (
        2,
        f"error: experiment '{name}': none of the 0 that match 'metrics.`inception/fid` < 9' is finished and "
        "has a FID; `dvc repro` makes one\n",
    )
    for malformed in ("schedule is cosine", "params.schedule = cosine", "params.epochs >", "'"):
        code, printed = compare("--experiment", name, "--filter", malformed)
        assert code == 2 and printed.startswith(f"error: --filter: MLflow does not understand {malformed!r} (")
        assert printed.count("\n") == 1


def test_all_pages_of_a_long_answer_are_read(
    tracked: Config, compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed in range(5):
        config = with_training(tracked, seed=seed)
        record_scores(config, record_training(config), 10.0 + seed)
    monkeypatch.setattr(finished, "PAGE", 2)
    assert compare("--experiment", tracked.tracking.experiment)[0] == 0
    assert sorted(table(tmp_path)["params.seed"]) == [0, 1, 2, 3, 4]
    assert "12.00 (10.04 to 13.96), 5 seeds" in (tmp_path / "comparison.md").read_text()


def test_hostile_names_break_neither_page(tracked: Config, compare, tmp_path: Path) -> None:
    name = "a | <script>alert(1)</script> `x` *y*"
    config = changed(tracked, "tracking", experiment=name)
    run_id = record_scores(config, record_training(config, device="<img src=x> | GPU"), 10.0)
    client(Path.cwd()).update_run(run_id, name="=| <script>\n# run")
    assert compare("--experiment", name)[0] == 0
    page = (tmp_path / "comparison.html").read_text()
    assert "<script" not in page and "<img src=x" not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt; `x` *y*" in page
    assert "1.0 h on &lt;img src=x&gt; | GPU</td>" in page
    assert table(tmp_path)["name"][0] == "=| <script>\n# run"


def test_a_second_comparison_replaces_the_first(tracked: Config, compare, tmp_path: Path) -> None:
    (tmp_path / "comparison").mkdir()
    for name in ("protocol9-hours.png", "mine.png"):
        (tmp_path / "comparison" / name).write_bytes(b"old")
    record_scores(tracked, record_training(tracked), 10.0)
    assert compare("--experiment", tracked.tracking.experiment)[0] == 0
    assert [path.name for path in (tmp_path / "comparison").iterdir()] == ["mine.png"]
    page = (tmp_path / "comparison.md").read_text()
    assert page.count("No figure: ") == 2 and "No pictures: " in page and "Settings that were scored" in page


def test_what_cannot_be_compared_is_told_in_a_sentence(
    tracked: Config, compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = tracked.tracking.experiment
    record_training(tracked)
    assert compare("--experiment", name) == (
        2, f"error: experiment '{name}': none of its 1 runs is finished and has a FID; `dvc repro` makes one\n"
    )  # fmt: skip
    code, printed = compare("--experiment", "another")
    assert code == 2 and printed.startswith("error: experiment 'another': MLflow knows only ") and name in printed
    (tmp_path / "file").write_text("")
    assert compare("--out", tmp_path / "file") == (
        2,
        f"error: --out: {tmp_path / 'file'} cannot be made (File exists); name another folder\n",
    )
    assert compare()[0] == 2  # no params.yaml here, which would name the experiment
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".dvc").mkdir()
    code, printed = compare("--experiment", name)
    assert code == 2 and printed.startswith(f"error: {tmp_path / 'mlflow.db'}: no such MLflow store; ")
    (tmp_path / "mlflow.db").write_text("no database, but longer than the header of one: " + 100 * "x")
    code, printed = compare("--experiment", name)
    assert code == 1 and "cannot be read (" in printed and printed.count("\n") == 1


def test_hundreds_of_runs_take_few_queries(
    tracked: Config, repository: Path, compare, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = np.zeros((64, 16, 16, 3), np.uint8)
    run_id = record_scores(tracked, record_training(tracked), 10.0, images=images, folder=tmp_path / "images")
    with closing(sqlite3.connect(repository / "mlflow.db")) as store, store:
        for number in range(299):
            _clone(store, run_id, number)
    queries: list[str] = []

    def note(_connection, _cursor, statement, *_):
        queries.append(statement)

    event.listen(Engine, "before_cursor_execute", note)
    assert compare("--experiment", tracked.tracking.experiment)[0] == 0
    event.remove(Engine, "before_cursor_execute", note)
    assert len(queries) < 4 * 300  # 2.6 for each run, however many there are
    assert len(table(tmp_path)) == 300
    page = (tmp_path / "comparison.md").read_text()
    assert "276 more settings are not shown" in page and "more settings are in comparison.csv only" in page


def _clone(store: sqlite3.Connection, run_id: str, number: int) -> None:
    """Copy a run with other parameters: the same number of each of 3 schedules, 5 epochs and 20 learning rates."""
    other = uuid.uuid4().hex
    for name, column in (("runs", "run_uuid"), *((name, "run_uuid") for name in ("params", "tags", "latest_metrics"))):
        columns = [row[1] for row in store.execute(f"PRAGMA table_info({name})")]
        values = ", ".join("?" if each == column else each for each in columns)
        store.execute(
            f"INSERT INTO {name} ({', '.join(columns)}) SELECT {values} FROM {name} WHERE {column} = ?", (other, run_id)
        )
    number += 1
    changes = {
        "schedule": ("linear", "cosine", "sigmoid")[number % 3],
        "epochs": str(100 * (1 + number // 3 % 5)),
        "train.lr": str((1 + number // 15) / 1e4),
    }
    for name, value in changes.items():
        store.execute("UPDATE params SET value = ? WHERE run_uuid = ? AND key = ?", (value, other, name))
