"""The trained model as MLflow 3 knows it: with a page of its own, its run, and the scores of its samples."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:  # importing MLflow takes seconds, and half of the stages do not track
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel, Run

NAME = "model"  # so that runs:/RUN_ID/model finds it, as it finds that folder of the artifacts on an older server


def log_model(client: "MlflowClient", run_id: str, folder: Path) -> bool:
    """Log a folder as the LoggedModel of a run, unless it has one; returns False if the server has none.

    Called again after it was interrupted, it completes what it began.
    """
    from mlflow import MlflowException
    from mlflow.entities import LoggedModelOutput, LoggedModelStatus
    from mlflow.models import Model

    run = client.get_run(run_id)
    try:
        model = _begun(client, run) or client.create_logged_model(
            run.info.experiment_id, NAME, source_run_id=run_id, params=run.data.params
        )
    except MlflowException as error:
        if error.error_code != "ENDPOINT_NOT_FOUND":
            raise
        return False  # a server of MLflow 2
    if model.status == LoggedModelStatus.READY:
        return True
    about = Model.load(str(folder))
    about.run_id, about.model_id, about.artifact_path = run_id, model.model_id, f"models:/{model.model_id}"
    about.save(str(folder / "MLmodel"))
    if model_of(run) != model.model_id:  # MLflow refuses the same link twice
        client.log_outputs(run_id, [LoggedModelOutput(model.model_id, step=0)])
    client.log_model_artifacts(model.model_id, str(folder))
    client.finalize_logged_model(model.model_id, LoggedModelStatus.READY)
    return True


def model_of(run: "Run") -> str | None:
    """Id of the model that a run has trained, or whose samples it has scored."""
    trained = [model.model_id for model in run.outputs.model_outputs or []] if run.outputs else []
    scored = [model.model_id for model in run.inputs.model_inputs or []] if run.inputs else []
    return next(iter(trained + scored), None)


def use_model(client: "MlflowClient", run_id: str, model_id: str | None) -> None:
    """Note that a run scores the samples of a model, if there is such a model."""
    from mlflow.entities import LoggedModelInput

    if model_id:
        client.log_inputs(run_id, models=[LoggedModelInput(model_id)])


def _begun(client: "MlflowClient", run: "Run") -> "LoggedModel | None":
    found = client.search_logged_models([run.info.experiment_id], f"source_run_id = '{run.info.run_id}'")
    return found[0] if found else None
