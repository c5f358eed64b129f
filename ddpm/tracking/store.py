"""The MLflow store: where it is, which of its runs belongs to a piece of work, and how entries get into it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ddpm.tracking.database import artifact_root, find_experiment, location, locked
from ddpm.tracking.identity import KEY, SCORE_IDENTITY
from ddpm.tracking.inputs import dataset_input
from ddpm.tracking.logged_models import log_model, model_of, use_model
from ddpm.tracking.moved import adopt
from ddpm.tracking.processes import is_gone
from ddpm.tracking.views import TAGS

if TYPE_CHECKING:  # importing MLflow takes seconds, and half of the stages do not track
    from mlflow import MlflowClient
    from mlflow.entities import Run

OPENED_BY = "pipeline.opened_by"  # train | score
ATTEMPT = "pipeline.attempt"  # what process wrote to the run last, so that a killed one can be recognised
INHERITED = ("device",)  # what a run of further scores takes over from that of their training
PARENT = "mlflow.parentRunId"  # MLflow's own tag: the UI nests this run below that one

Entry = Mapping[str, Any]  # one thing to record; `Store.send` lists its forms


@dataclass(frozen=True)
class Work:
    """What a stage records: all that it takes to find or open its run, now or, from a file, days later.

    stage: train (a new run, or that of an interrupted attempt) | score (the run of the training, or one below it).
    key: identity of the training.
    resumed: this attempt goes on from the checkpoint of an earlier one.
    names: what people call a run of this training, and one of these scores.
    training, scoring: parameters, as MLflow shows them.
    tags: where the run comes from.
    started: milliseconds since 1970.
    attempt: see `processes.new_attempt`.
    experiment: name of the MLflow experiment.
    """

    stage: str
    key: str
    resumed: bool
    names: tuple[str, str]
    training: dict[str, str]
    scoring: dict[str, str]
    tags: dict[str, str]
    started: int
    attempt: str
    experiment: str


@dataclass(frozen=True)
class Claim:
    """The run into which a piece of work is written; `opened`: the work also ends it."""

    run_id: str
    opened: bool


def run_of_training(runs: "list[Run]") -> "Run | None":
    """The run of a training, among all that have its key; None where it has none."""
    trainings = [run for run in runs if PARENT not in run.data.tags]
    # A finished attempt is the one whose model is scored; failed ones may have come after it.
    return max(trainings, key=lambda run: (run.info.status == "FINISHED", run.info.start_time), default=None)


class Store:
    """One experiment of a tracking store; every method may raise whatever MLflow raises."""

    def __init__(self, experiment: str) -> None:
        """Open the store that `prepare` has seen to."""
        import mlflow

        self.uri, self._database = location()
        self.client: MlflowClient = mlflow.MlflowClient(tracking_uri=self.uri)
        self._file = self._identity()
        self.experiment_id = self._open_experiment(experiment)

    def claim(self, work: Work) -> Claim:
        """Find or open the run of a piece of work; asked twice, it gives the same one."""
        # One process at a time, so that two stages never claim the same run.
        with locked(self._database):
            self._end_killed_runs()
            runs = self._runs(f"tags.`{KEY}` = '{work.key}'")
            mine = [run for run in runs if run.data.tags.get(ATTEMPT) == work.attempt]
            if mine:
                return Claim(mine[0].info.run_id, opened=True)
            return self._claim_training(work, runs) if work.stage == "train" else self._claim_scores(work, runs)

    def holds(self, claim: Claim) -> bool:
        """Return whether this store has that run."""
        from mlflow import MlflowException

        try:
            return self.client.get_run(claim.run_id).info.lifecycle_stage == "active"
        except MlflowException as error:
            if error.error_code == "RESOURCE_DOES_NOT_EXIST":
                return False
            raise

    def adopt(self, claim: Claim) -> None:
        """Bring the artifacts of a run here, before it gets more of them; see `moved.adopt`."""
        if self.uri.startswith("sqlite:"):
            with locked(self._database):
                adopt(self._database, claim.run_id)

    def send(self, claim: Claim, entry: Entry) -> None:
        """Add one entry to a run."""
        from mlflow.entities import Metric

        if self._identity() != self._file:  # SQLite would go on with a file that has no name any more
            raise FileNotFoundError(f"{self._database} was deleted or replaced")
        client, run_id = self.client, claim.run_id
        match entry:
            case {"tags": tags}:
                self._log(run_id, tags=tags)
            case {"metrics": metrics, "step": step, "time": time}:
                model = model_of(client.get_run(run_id)) if entry.get("of_model") else None
                points = [Metric(name, value, time, step, model_id=model) for name, value in metrics.items()]
                client.log_batch(run_id, metrics=points, synchronous=True)
            case {"dataset": fields, "context": context}:
                client.log_inputs(run_id, [dataset_input(fields, context)])
            case {"image": image, "key": key, "step": step, "time": time}:
                # synchronous: nothing is left in a queue if the process is killed.
                client.log_image(run_id, image, key=key, step=step, timestamp=time, synchronous=True)
            case {"artifacts": path, "of_model": True} if log_model(client, run_id, Path(path)):
                pass
            case {"artifacts": path, "folder": folder}:
                copy = client.log_artifacts if Path(path).is_dir() else client.log_artifact
                copy(run_id, path, folder)
            case {"end": status, "time": time} if claim.opened:
                client.set_terminated(run_id, status, end_time=time)

    def end_if_gone(self, claim: Claim) -> None:
        """End a run whose process was killed before it could."""
        run = self.client.get_run(claim.run_id)
        if claim.opened and run.info.status == "RUNNING" and is_gone(run.data.tags.get(ATTEMPT, "")):
            self.client.set_terminated(claim.run_id, "KILLED")

    def pictures(self, claim: Claim) -> set[tuple[str, int]]:
        """Key and step of each picture of a run."""
        # MLflow names them KEY+step+STEP+timestamp+….
        names = [Path(file.path).name.split("+") for file in self.client.list_artifacts(claim.run_id, "images")]
        return {(name[0], int(name[2])) for name in names if name[1:2] == ["step"]}

    def points(self, claim: Claim) -> set[tuple[str, int]]:
        """Name and step of each point of the curves of a run."""
        names = self.client.get_run(claim.run_id).data.metrics
        return {(name, point.step) for name in names for point in self.client.get_metric_history(claim.run_id, name)}

    def is_newest(self, claim: Claim, work: Work) -> bool:
        """Return whether no other attempt at the same work has taken over its run."""
        return bool(self.client.get_run(claim.run_id).data.tags.get(ATTEMPT) == work.attempt)

    def _claim_training(self, work: Work, runs: "list[Run]") -> Claim:
        earlier = [run for run in runs if run.data.tags.get(OPENED_BY) == "train"] if work.resumed else []
        if earlier:
            return self._reopen(earlier[0], work)
        return self._open(work, work.names[0], work.training)

    def _claim_scores(self, work: Work, runs: "list[Run]") -> Claim:
        training = run_of_training(runs)
        if training is None:
            print(
                "MLflow has no run of this training (restored from DVC's cache, or made elsewhere): opening a new one"
            )
            return self._open(work, work.names[1], work.training | work.scoring)

        children = [run for run in runs if run.data.tags.get(PARENT) == training.info.run_id]
        for run in (training, *children):
            # A run that has no scores yet lacks these parameters, and so agrees.
            if all(run.data.params.get(name, work.scoring[name]) == work.scoring[name] for name in SCORE_IDENTITY):
                return self._join(run, work)
        params = training.data.params | work.scoring
        tags = {name: training.data.tags[name] for name in INHERITED if name in training.data.tags}
        claim = self._open(work, work.names[1], params, {PARENT: training.info.run_id, **tags})
        use_model(self.client, claim.run_id, model_of(training))
        return claim

    def _join(self, run: "Run", work: Work) -> Claim:
        """Take an existing run for these scores; only one that a later stage left unfinished is the caller's to end."""
        # MLflow refuses a second value of a parameter, and batch sizes may have changed.
        new = {name: value for name, value in work.scoring.items() if name not in run.data.params}
        self._log(run.info.run_id, params=new)
        if run.info.run_name == work.names[0]:  # else it has its full name, or one that somebody gave it
            self.client.update_run(run.info.run_id, name=work.names[1])
        if run.data.tags.get(OPENED_BY) == "score" and run.info.status != "FINISHED":
            return self._reopen(run, work)
        return Claim(run.info.run_id, opened=False)

    def _open(self, work: Work, name: str, params: dict[str, str], tags: dict[str, str] | None = None) -> Claim:
        tags = {KEY: work.key, OPENED_BY: work.stage, ATTEMPT: work.attempt} | work.tags | (tags or {})
        run = self.client.create_run(self.experiment_id, start_time=work.started, tags=tags, run_name=name)
        self._log(run.info.run_id, params=params)
        return Claim(run.info.run_id, opened=True)

    def _reopen(self, run: "Run", work: Work) -> Claim:
        self.client.update_run(run.info.run_id, status="RUNNING")
        self._log(run.info.run_id, tags={ATTEMPT: work.attempt})
        return Claim(run.info.run_id, opened=True)

    def _end_killed_runs(self) -> None:
        """End the runs of this machine whose process is gone: a kill -9 leaves nobody who could."""
        for run in self._runs("attributes.status = 'RUNNING'"):
            if is_gone(run.data.tags.get(ATTEMPT, "")):
                self.client.set_terminated(run.info.run_id, "KILLED")

    def _runs(self, condition: str) -> "list[Run]":
        """Runs of the experiment, newest first."""
        return self.client.search_runs([self.experiment_id], condition, order_by=["attributes.start_time DESC"])

    def _log(self, run_id: str, params: Mapping[str, str] | None = None, tags: Mapping[str, str] | None = None) -> None:
        from mlflow.entities import Param, RunTag

        self.client.log_batch(
            run_id,
            params=[Param(name, value) for name, value in (params or {}).items()],
            tags=[RunTag(name, value) for name, value in (tags or {}).items()],
            synchronous=True,
        )

    def _identity(self) -> int:
        """Which file the database is; 0 for a server, or where there is none any more."""
        is_file = self.uri.startswith("sqlite:") and self._database.exists()
        return self._database.stat().st_ino if is_file else 0

    def _open_experiment(self, name: str) -> str:
        from mlflow import MlflowException

        found = find_experiment(self.client, name)
        if found:
            for tag in TAGS.keys() - found.tags.keys():  # made by an earlier version, or by hand
                self.client.set_experiment_tag(found.experiment_id, tag, TAGS[tag])
            return found.experiment_id
        # A server keeps artifacts where it likes; MLflow's default for a database is below the current folder.
        place = None if self.uri.startswith("http") else artifact_root(self._database)
        try:
            return self.client.create_experiment(name, place, TAGS)
        except MlflowException:
            found = find_experiment(self.client, name)
            if found is None:
                raise
            return found.experiment_id  # made by another process in the meantime
