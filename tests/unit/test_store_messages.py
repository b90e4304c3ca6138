"""Where a store cannot be used: its own reason whole, in one line, and the remedy for that one, which works."""

import shlex
import sqlite3

import pytest
from click.testing import CliRunner
from mlflow.experiments import commands

from ms_automl.callbacks.mlflow import Tracker
from ms_automl.callbacks.mlflow.opening import absolute, database, how_to_see, public, reason, seen_from, sqlite
from ms_automl.errors import TrackingError
from tests.unit.stores import store
from tests.unit.test_writer_probe import read_only

pytestmark = pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning")
ODD = ["a b", "a#b", "a?b", "a%20b", "100%", "ü", "a;b&c='d'", "a\\b"]


def refused(uri):
    with pytest.raises(TrackingError) as error:
        Tracker(uri)
    said = str(error.value)
    assert "\n" not in said and "Start it" not in said and "start it" not in said
    return said


def stamp(file, version):
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = ?", (version,))
    connection.close()


def test_a_deleted_experiment_names_the_command_that_restores_it(tmp_path, monkeypatch):
    uri = store(tmp_path / "a b")
    tracker = Tracker(uri)
    tracker.client.delete_experiment(tracker.experiment)
    said = refused(uri)
    assert "'ms_automl'" in said and "is deleted" in said
    setting, *command = shlex.split(said.partition("restore it: ")[2])
    assert command[:3] == ["mlflow", "experiments", "restore"]
    monkeypatch.setenv(*setting.split("=", 1))
    done = CliRunner().invoke(commands, command[2:])
    assert done.exit_code == 0, done.output
    assert Tracker(uri).experiment == tracker.experiment


def test_an_old_schema_is_to_be_upgraded_and_one_of_a_newer_mlflow_is_not(tmp_path):
    uri = store(tmp_path / "a b")
    file = tmp_path / "a b" / "mlflow.db"
    stamp(file, "17e22815139b")
    said = refused(uri)
    assert "found version 17e22815139b" in said and said.endswith(f"mlflow db upgrade {shlex.quote(uri)}")
    stamp(file, "ffffffffffff")
    said = refused(uri)
    assert "found version ffffffffffff" in said and "install the MLflow that wrote it, or a newer one" in said


def test_a_file_that_is_no_database_is_to_be_moved_away(tmp_path):
    file = tmp_path / "mlflow.db"
    file.write_text("no database " * 100)
    said = refused(f"sqlite:///{file}")
    assert "file is not a database" in said and f"move {file} away" in said
    file.rename(tmp_path / "away")
    store(tmp_path)
    assert Tracker(f"sqlite:///{file}").experiment


def test_a_database_that_cannot_be_written_is_to_be_made_writable(tmp_path):
    uri = store(tmp_path)
    read_only(tmp_path / "mlflow.db")
    said = refused(uri)
    assert (
        "attempt to write a readonly database" in said and f"let {tmp_path / 'mlflow.db'} and its folder" in said
    )


def test_a_folder_in_the_place_of_the_database_is_told(tmp_path):
    (tmp_path / "mlflow.db").mkdir()
    assert "unable to open database file" in refused(f"sqlite:///{tmp_path / 'mlflow.db'}")
    (tmp_path / "file").write_text("")
    said = refused(f"sqlite:///{tmp_path / 'file' / 'mlflow.db'}")
    assert f"make {tmp_path / 'file'} a folder" in said


def test_a_store_of_files_and_one_without_its_driver_have_remedies_of_their_own(tmp_path):
    assert "MLFLOW_TRACKING_URI=sqlite:///mlflow.db" in refused((tmp_path / "mlruns").as_uri())
    said = refused("mssql+pymssql://me:secret@127.0.0.1:9/x")
    assert "secret" not in said and "install the package that has the module 'pymssql'" in said


@pytest.mark.parametrize("name", ODD)
def test_an_address_names_just_the_file_it_was_made_of(name, tmp_path, monkeypatch):
    folder = tmp_path / name
    folder.mkdir()
    assert database(sqlite(folder / "mlflow.db")) == folder / "mlflow.db"
    assert absolute(sqlite(folder / "mlflow.db")) == sqlite(folder / "mlflow.db")
    monkeypatch.chdir(folder)
    assert database(absolute("sqlite:///mlflow.db")) == folder / "mlflow.db"
    assert how_to_see(absolute("sqlite:///mlflow.db")) == "mlflow ui"
    monkeypatch.chdir(tmp_path)
    command = shlex.split(how_to_see(sqlite(folder / "mlflow.db")))
    assert command[:3] == ["mlflow", "ui", "--backend-store-uri"] and database(command[3]) == folder / "mlflow.db"


@pytest.mark.parametrize("name", ODD)
def test_a_record_leads_from_a_folder_below_a_link_to_the_store(name, tmp_path):
    project, disk = tmp_path / name, tmp_path / "disk" / "deep"
    project.mkdir()
    disk.mkdir(parents=True)
    (project / "mlflow.db").touch()
    (project / "out").symlink_to(disk)
    out = project / "out" / "rooms"
    out.mkdir()
    named = database(seen_from(sqlite(project / "mlflow.db"), out))
    assert not named.is_absolute() and (out / named).resolve() == project / "mlflow.db"


def test_a_reason_is_whole_and_has_neither_sql_nor_passwords():
    long = " ".join(f"word{number}" for number in range(200))
    assert reason(ValueError(f"{long}\n[SQL: SELECT secret]\n(Background on this error at: x)")) == long
    assert public("postgresql://me:secret@h/x?password=secret&a=1") == "postgresql://h/x?password=&a=1"
    assert reason(KeyError()) == "KeyError"
