"""Stages on a machine that has no MLflow, such as a borrowed GPU."""

import pytest
import yaml

import stages
from ddpm.runtime import interpreter


@pytest.mark.parametrize("tracked", [False, True])
def test_a_stage_asks_for_mlflow_only_when_it_tracks(params, tmp_path, monkeypatch, capsys, tracked):
    done, find_spec = [], interpreter.importlib.util.find_spec
    monkeypatch.setattr(
        interpreter.importlib.util, "find_spec", lambda name: None if name == "mlflow" else find_spec(name)
    )
    monkeypatch.setattr(stages, "_check_package", lambda: None)
    monkeypatch.setenv("RANK", "1")  # only the first process notes its time, for which there must be a pipeline
    monkeypatch.chdir(tmp_path)
    params["tracking"]["enabled"] = tracked
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(params))
    if not tracked:
        stages._run(done.append)
        assert len(done) == 1
        return
    with pytest.raises(SystemExit) as ended:
        stages._run(done.append)
    assert (ended.value.code, done) == (2, []) and "lacks mlflow; run" in capsys.readouterr().err
