"""Model, data and source of a run as MLflow's pages and its API know them, in a real SQLite store."""

import json

import mlflow
import pytest
from mlflow import MlflowClient, MlflowException
from mlflow.entities import LoggedModelStatus

from ddpm.tracking import runs as tracking
from ddpm.tracking.runs import sync
from tests.support.exported import write_model
from tests.support.tracked import NOWHERE, TRAIN, changed, client, runs

SUMMARY = {"count": 40, "class_names": ["daisy", "rose"]}
SHA256 = "0123456789abcdef" * 4


@pytest.fixture
def train(tracked, repository, tmp_path):
    """Track a training with data and model as the stage does; returns its run."""
    folder = write_model(tmp_path / "models")

    def train(config=tracked, resumed=False):
        with tracking.training_run(config, TRAIN, resumed=resumed) as run:
            run.dataset(config.data, SUMMARY, SHA256, "training")
            run.model(folder, tmp_path)
        return runs(repository, config)[-1]

    return train


def models(repository, run):
    return client(repository).search_logged_models([run.info.experiment_id])


def metrics_of(model):
    return {(metric.key, metric.value, metric.run_id) for metric in model.metrics}


def test_the_model_is_linked_to_its_run_its_parameters_and_the_scores_of_all_its_samples(train, tracked, repository):
    run = train()
    further = changed(tracked, "sample", steps=20)
    for config, fid in ((tracked, 10.0), (further, 12.0)):
        with tracking.later_stage(config, TRAIN) as later:
            later.scores({"inception/fid": fid})
            later.metrics({"seconds/fid": 3.0})
    (model,) = models(repository, run)
    child, parent = runs(repository, tracked)
    assert model.status == LoggedModelStatus.READY and model.source_run_id == run.info.run_id == parent.info.run_id
    assert metrics_of(model) == {
        ("inception/fid", 10.0, run.info.run_id),
        ("inception/fid", 12.0, child.info.run_id),
    }
    assert model.params["train.lr"] == "0.0002" and parent.data.metrics["seconds/fid"] == 3.0
    (used,) = client(repository).get_run(child.info.run_id).inputs.model_inputs
    assert used.model_id == model.model_id


def test_a_model_that_is_logged_again_after_a_kill_is_one_model(train, tracked, repository, monkeypatch):
    def killed(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(MlflowClient, "finalize_logged_model", killed)
        train()
    run = train(resumed=True)
    (model,) = models(repository, run)
    assert model.status == LoggedModelStatus.READY
    assert model.model_id == runs(repository, tracked)[0].outputs.model_outputs[0].model_id


def test_what_a_failing_store_missed_is_sent_with_model_and_data(tracked, repository, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", NOWHERE)
        with tracking.training_run(tracked, TRAIN) as run:
            run.dataset(tracked.data, SUMMARY, SHA256, "training")
            run.model(write_model(tmp_path / "kept"), tmp_path)
    assert sync() == 1
    (run,) = runs(repository, tracked)
    (model,) = models(repository, run)
    assert model.status == LoggedModelStatus.READY and len(run.inputs.dataset_inputs) == 1


def test_a_server_without_such_models_gets_the_folder_in_the_artifacts(train, repository, monkeypatch):
    def unknown(*_, **__):  # as a server of MLflow 2.22 answers
        error = MlflowException("404 Not Found")
        error.error_code = "ENDPOINT_NOT_FOUND"
        raise error

    monkeypatch.setattr(MlflowClient, "search_logged_models", unknown)
    run = train()
    assert run.info.status == "FINISHED" and not run.outputs.model_outputs
    folder = repository / "mlartifacts" / run.info.run_id / "artifacts/model"
    assert {"MLmodel", "model.safetensors", "config.json"} <= {path.name for path in folder.iterdir()}


def test_a_model_is_registered_and_loaded_by_alias(train, repository, tmp_path, monkeypatch):
    run = train()
    uri = f"sqlite:///{repository / 'mlflow.db'}"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    mlflow.set_tracking_uri(uri)
    try:
        version = mlflow.register_model(f"runs:/{run.info.run_id}/model", "roses")
        client(repository).set_registered_model_alias("roses", "best", version.version)
        loaded = mlflow.pyfunc.load_model("models:/roses@best", dst_path=str(tmp_path))
    finally:
        mlflow.set_tracking_uri(None)
    assert loaded.metadata.run_id == run.info.run_id
    assert loaded.metadata.model_id == models(repository, run)[0].model_id
    assert len(loaded.predict([{"n": 2, "steps": 2}])[0]) == 2


@pytest.mark.parametrize(
    ("source", "name", "place"),
    [
        ("flowers102", "flowers102", {"url": "https://www.robots.ox.ac.uk/~vgg/data/flowers/102/102flowers.tgz"}),
        ("folder", "my roses, [2024]", {"uri": "/photos/my roses, [2024]"}),
        ("synthetic", "synthetic", None),
    ],
)
def test_a_run_names_its_data_and_what_wrote_it(tracked, repository, source, name, place):
    config = changed(tracked, "data", source=source, path="/photos/my roses, [2024]")
    with tracking.training_run(config, TRAIN) as run:
        run.dataset(config.data, SUMMARY, SHA256, "training")
    with tracking.later_stage(config, TRAIN) as run:  # the same data once more
        run.dataset(config.data, SUMMARY, SHA256, "evaluation")
    (run,) = runs(repository, config)
    (found,) = run.inputs.dataset_inputs
    assert (found.dataset.name, found.dataset.digest) == (name, SHA256[:12])
    assert [(tag.key, tag.value) for tag in found.tags] == [("mlflow.data.context", "training")]
    assert place is None or mlflow.data.get_source(found.dataset).to_dict() == place
    assert json.loads(found.dataset.profile) == {"images": 40, "classes": 2, "image_size": 64}
    schema = mlflow.data.schema.TensorDatasetSchema.from_dict(json.loads(found.dataset.schema))
    assert schema.features.inputs[0].shape == (-1, 64, 64, 3)
    source_tags = {tag: run.data.tags[f"mlflow.source.{tag}"] for tag in ("name", "type")}
    assert source_tags == {"name": "stages/train.py", "type": "LOCAL"}


def test_an_experiment_gets_its_kind_and_views_once_and_keeps_what_somebody_chose(tracked, repository):
    store = client(repository)
    store.create_experiment(tracked.tracking.experiment, tags={"mlflow.experimentKind": "genai_development"})
    with tracking.training_run(tracked, TRAIN):
        pass
    tags = store.get_experiment_by_name(tracked.tracking.experiment).tags
    assert tags["mlflow.experimentKind"] == "genai_development"
    view = json.loads(tags["mlflow.sharedViewState.seeds"])
    params = runs(repository, tracked)[0].data.params | tracking.params_of(tracked, {"sample"})
    assert {key["groupByData"] for key in view["groupBy"]["groupByKeys"]} <= params.keys()
    with tracking.training_run(changed(tracked, "tracking", experiment=f"{tracked.tracking.experiment} 2"), TRAIN):
        pass
    fresh = store.get_experiment_by_name(f"{tracked.tracking.experiment} 2").tags
    assert fresh["mlflow.experimentKind"] == "custom_model_development"
