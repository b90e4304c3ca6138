"""Artifacts lie beside the store in use, whatever was copied, renamed or linked, and however it is called."""

import shutil

import pytest
from mlflow import MlflowClient

from ms_automl.callbacks.mlflow import Tracker
from ms_automl.callbacks.mlflow.artifacts import check, folder_of
from ms_automl.errors import TrackingError
from tests.unit.stores import store

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
ODD = ["a b", "a#b", "a?b", "a%20b", "100%", "ü", "a;b&c='d'"]


def made(folder, name="one"):
    """A comparison in a project's store, as the command makes it there."""
    tracker = Tracker(store(folder))
    tracker.begin(name, {"preset": "none"}, {"a": 1})
    tracker.finish({"rows": []}, {"useful_share": 1.0}, "FINISHED")
    assert tracker.writer.lost is None
    return tracker.run_id


def as_before(folder):
    """A project whose experiment MLflow made by itself, as earlier versions had it."""
    client = MlflowClient(store(folder))
    client.create_experiment("ms_automl", artifact_location=str(folder / "mlruns" / "1"))
    return made(folder)


def files(folder):
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if path.is_file()
    }


def written_again(folder, run_id):
    """A report into a comparison's run, and a comparison that is new, in a project."""
    said = []
    tracker = Tracker(f"sqlite:///{folder / 'mlflow.db'}", said.append)
    tracker.resume(run_id, {"a": 1, "b": 2})
    tracker.finish({"rows": [1]}, {}, "FINISHED")
    assert tracker.writer.lost is None
    assert tracker.artifacts.read_json(run_id, "comparison.json") == {"rows": [1]}
    new = made(folder, "new")
    for run in (run_id, new):
        place = folder_of(tracker.client.get_run(run).info.artifact_uri)
        assert place.is_relative_to(folder) and (place / "comparison.json").is_file()
    return said


@pytest.mark.parametrize("make", [made, as_before])
def test_a_copy_of_a_project_writes_nothing_into_the_original(make, tmp_path):
    original, copy = tmp_path / "original", tmp_path / "copy"
    run_id = make(original)
    shutil.copytree(original, copy)
    before = files(original)
    (said,) = written_again(copy, run_id)
    assert files(original) == before
    assert str(original) in said and str(copy) in said and "\n" not in said
    assert written_again(copy, run_id) == []  # once is enough


@pytest.mark.parametrize("make", [made, as_before])
def test_a_renamed_project_does_not_make_its_old_path_again(make, tmp_path):
    original, new = tmp_path / "original", tmp_path / "renamed"
    run_id = make(original)
    original.rename(new)
    assert len(written_again(new, run_id)) == 1
    assert not original.exists()


def test_a_copy_that_lies_above_or_below_its_original_is_a_copy(tmp_path):
    run_id = made(tmp_path / "project" / "inner")
    inner, outer = tmp_path / "project" / "inner", tmp_path / "project"
    shutil.copytree(inner, outer, dirs_exist_ok=True)
    before = files(inner)
    written_again(outer, run_id)
    assert files(inner) == before
    below = inner / "below"
    shutil.copytree(inner, below, ignore=shutil.ignore_patterns("below"))
    before = {name: kept for name, kept in files(outer).items() if not name.startswith("inner/below/")}
    written_again(below, run_id)
    assert {name: kept for name, kept in files(outer).items() if not name.startswith("inner/below/")} == before


def test_a_database_that_was_copied_without_its_artifacts_is_refused_with_what_to_copy(tmp_path):
    original, copy = tmp_path / "original", tmp_path / "copy"
    run_id = made(original)
    copy.mkdir()
    shutil.copy(original / "mlflow.db", copy)
    before = files(original)
    with pytest.raises(TrackingError, match=r"is a copy.*copy that folder to") as error:
        Tracker(f"sqlite:///{copy / 'mlflow.db'}")
    assert files(original) == before
    source, target = original / "mlruns" / "ms_automl", copy / "mlruns" / "ms_automl"
    assert str(source) in str(error.value) and str(error.value).endswith(f"copy that folder to {target}")
    shutil.copytree(source, target)
    written_again(copy, run_id)
    assert files(original) == before


def test_a_folder_that_somebody_chose_for_the_artifacts_is_kept(tmp_path):
    chosen, project = tmp_path / "disk" / "artifacts", tmp_path / "project"
    chosen.mkdir(parents=True)
    client = MlflowClient(store(project))
    client.create_experiment("ms_automl", artifact_location=chosen.as_uri())
    run_id = made(project)
    assert (chosen / run_id / "artifacts" / "comparison.json").is_file()


@pytest.mark.parametrize("name", ODD)
def test_a_project_may_be_called_anything(name, tmp_path, monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    project = tmp_path / name
    store(project)
    monkeypatch.chdir(project)
    tracker = Tracker()
    tracker.begin("one", {}, {"a": 1})
    tracker.finish({"rows": []}, {}, "FINISHED")
    assert tracker.writer.lost is None
    assert {path.name for path in tmp_path.iterdir()} == {name}  # no folder of a quoted name beside it
    assert {path.name for path in project.iterdir()} == {"mlflow.db", "mlruns"}
    assert len(list(project.glob("mlruns/*/*/artifacts/comparison.json"))) == 1
    # And MLflow finds it from there, as `mlflow ui` does.
    client = MlflowClient()
    assert {item.path for item in client.list_artifacts(tracker.run_id)} == {"comparison.json", "config.json"}
    assert [path for path in tmp_path.iterdir() if list(path.iterdir())] == [project]


def test_links_to_the_project_the_artifacts_and_the_database_are_no_copies(tmp_path):
    disk, project = tmp_path / "disk", tmp_path / "project"
    store(disk, "other-name.db")
    project.mkdir()
    (project / "mlflow.db").symlink_to(disk / "other-name.db")
    run_id = made(project)
    (tmp_path / "link").symlink_to(project)
    said = []
    tracker = Tracker(f"sqlite:///{tmp_path / 'link' / 'mlflow.db'}", said.append)
    tracker.resume(run_id, {"a": 1})
    tracker.finish({"rows": [1]}, {}, "FINISHED")
    assert said == [] and tracker.writer.lost is None
    shutil.move(disk / "mlruns", tmp_path / "big")
    (disk / "mlruns").symlink_to(tmp_path / "big")
    again = Tracker(f"sqlite:///{project / 'mlflow.db'}", said.append)
    assert said == [] and again.artifacts.read_json(run_id, "comparison.json") == {"rows": [1]}


def test_nothing_is_written_where_a_server_recorded_a_path_of_another_machine(tmp_path):
    gone = tmp_path / "srv" / "mlruns" / "1" / "artifacts"
    with pytest.raises(TrackingError, match="serve artifacts"):
        check("http://mlflow.example.org:5000", gone.as_uri())
    check("http://127.0.0.1:5000", gone.as_uri())
    check("http://mlflow.example.org:5000", "mlflow-artifacts:/1/2/artifacts")
    gone.mkdir(parents=True)
    check("http://mlflow.example.org:5000", str(gone))
