"""What is known of a transfer stage from its folder, its storage and MLflow, of this version and earlier ones."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ms_automl.callbacks.backup import Backup
from ms_automl.driver.transfer import earlier
from ms_automl.errors import ConfigError
from ms_automl.storage.files import write_json
from ms_automl.storage.remote import Storage
from tests.unit.test_transfer_stage import DENSE, EXPERIMENT, META, Driven


@pytest.fixture
def driven(tmp_path: Path) -> Driven:
    return Driven(tmp_path, [DENSE, META])


def test_what_mlflow_or_an_earlier_version_holds_of_the_stage_is_taken_over_once(
    driven: Driven, tmp_path: Path
) -> None:
    driven.finish(driven.begin(), 1, error="no")
    rows = driven.all_of_it().rows()
    for name, lines in (
        ("mlflow", None),
        ("earlier", [{"format": 1, "comparison": "run", "settings": {}}, *rows]),
    ):
        folder = tmp_path / name
        folder.mkdir()
        if lines:
            (folder / earlier.EARLIER).write_text("".join(json.dumps(line) + "\n" for line in lines))
        for _ in range(2):
            other = Driven(folder, [DENSE, META], None if lines else rows)
            assert other.stage.pending == [DENSE]
            assert sorted(other.rows(), key=str) == sorted(rows, key=str)
        assert {row["lost_passes"] for row in other.all_of_it().rows()} == {0.0, 12.0}


def test_attempts_in_an_earlier_journal_are_added_up_and_what_mlflow_says_of_them_is_not_counted_again(
    tmp_path: Path,
) -> None:
    there = tmp_path / "there"
    there.mkdir()
    (row,) = Driven(there, [DENSE]).all_of_it().rows()
    attempts = [row | {"status": "FAILED", "passes": 3.0}, row | {"status": "KILLED", "passes": 2.0}, row]
    lines = [{"format": 1, "comparison": "run", "settings": {}}, *attempts]
    (tmp_path / earlier.EARLIER).write_text("".join(json.dumps(line) + "\n" for line in lines))
    recorded = [row | {"lost_passes": 5.0}]
    for _ in range(2):
        (found,) = Driven(tmp_path, [DENSE], recorded).rows()
        assert found == recorded[0]


def test_what_is_done_elsewhere_is_not_run_here_though_it_was_begun(driven: Driven, tmp_path: Path) -> None:
    there = tmp_path / "there"
    there.mkdir()
    rows = Driven(there, [DENSE, META]).all_of_it().rows()
    driven.begin()
    again = Driven(tmp_path, [DENSE, META], rows)
    assert not again.stage.pending
    assert {row["status"] for row in again.rows()} == {"FINISHED"} and len(again.rows()) == 2


def test_settings_that_earlier_versions_called_otherwise_or_did_not_have_are_the_same() -> None:
    settings = asdict(EXPERIMENT.settings)
    before = {"metric" if name == "prox_metric" else name: value for name, value in settings.items()}
    del before["compile"]
    earlier.check_head(HEAD | {"settings": settings}, HEAD | {"settings": before}, (), (), "here")
    with pytest.raises(ConfigError, match="holds adaptations with prox_metric=adam, and now it is euclidean"):
        known = HEAD | {"settings": before | {"metric": "adam"}}
        earlier.check_head(HEAD | {"settings": settings}, known, (), (), "here")


HEAD: dict[str, Any] = {"format": 1, "comparison": "run", "settings": {"steps": 4}}


@pytest.mark.parametrize(
    ("now", "problem"),
    [
        ({"comparison": "other"}, "here belongs to comparison run, this is other: name a new folder"),
        ({"settings": {"steps": 8}}, "holds adaptations with steps=4, and now it is 8: give the same, or delete"),
        ({"format": 2}, "belongs to format 1, this is 2"),
    ],
)
def test_another_comparison_or_other_settings_are_refused(now: dict[str, Any], problem: str) -> None:
    earlier.check_head(HEAD, {}, (), (), "here")
    earlier.check_head(HEAD, HEAD, (), (), "here")
    with pytest.raises(ConfigError, match=problem):
        earlier.check_head(HEAD | now, HEAD, ["m0"], ["m1", "d0"], "here")


def test_a_comparison_that_got_another_run_is_known_by_its_models(driven: Driven, tmp_path: Path) -> None:
    driven.all_of_it()
    assert earlier.digests_in(tmp_path) == {"d0", "m0"}
    earlier.check_head(HEAD | {"comparison": "other"}, HEAD, {"d0", "m0"}, ["m0", "d0", "m1"], "here")


def test_another_machine_goes_on_from_the_storage_and_the_first_one_then_does_not(
    driven: Driven, tmp_path: Path
) -> None:
    storage, there = Storage(str(tmp_path / "store")), tmp_path / "there"
    there.mkdir()

    def copy(folder: Path, drivers: list[str]) -> str:
        backup = Backup(folder, storage, earlier.FILES, ())
        write_json(folder / earlier.RECORD, HEAD | {"drivers": [*drivers, backup.driver], "rows": []})
        backup.begin()
        backup.close()
        return backup.driver

    driven.finish(driven.begin())
    first = copy(tmp_path, [])
    earlier.fetch(there, storage, print)
    assert earlier.head_of(there) == earlier.head_of(tmp_path)
    again = Driven(there, [DENSE, META])
    assert again.stage.pending == [META]
    again.all_of_it()
    copy(there, [first])
    earlier.fetch(there, storage, print)  # its own copy
    with pytest.raises(
        ConfigError, match=r"this stage went on elsewhere, on host .* the same command goes on from"
    ):
        earlier.fetch(tmp_path, storage, print)
