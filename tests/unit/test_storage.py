"""Where trials leave their models: folders for real, an object store by its addresses."""

import pytest

from ms_automl.errors import ConfigError, DataError
from ms_automl.storage.remote import Storage, as_folder, exists, remote, shown, storage_of


def test_without_the_option_models_lie_in_the_comparison(tmp_path):
    assert storage_of(None, tmp_path / "mine") == Storage(str(tmp_path / "mine"))


def test_every_comparison_has_a_folder_of_its_own_in_a_shared_one(tmp_path):
    assert storage_of(str(tmp_path / "shared"), tmp_path / "mine").address == str(tmp_path / "shared" / "mine")
    options = "endpoint_override=127.0.0.1:9000"
    found = storage_of(f"s3://bucket/runs/?{options}", tmp_path / "mine")
    assert found.address == f"s3://bucket/runs/mine?{options}"


def test_places_in_a_store_are_whole_addresses():
    storage = Storage("s3://bucket/runs/mine?region=eu-west-1")
    assert storage.place("bucket/runs/mine/tune/model") == "s3://bucket/runs/mine/tune/model?region=eu-west-1"
    assert Storage("/shared/mine").place("/shared/mine/tune/model") == "/shared/mine/tune/model"
    assert remote("gs://bucket/a") and not remote("/shared/mine")


@pytest.mark.parametrize("option", ["ftp://host/path", "s3://", "s3://?region=x", "http://bucket/path"])
def test_addresses_of_no_known_store_are_refused(option, tmp_path):
    with pytest.raises(ConfigError, match="takes a folder that all hosts see, s3://BUCKET/PATH"):
        storage_of(option, tmp_path)


def test_keys_in_an_address_are_refused_and_not_repeated(tmp_path):
    with pytest.raises(ConfigError, match="keys belong in the environment") as caught:
        storage_of("s3://AAA:BBB@bucket/path", tmp_path)
    assert "BBB" not in str(caught.value)
    assert shown("s3://bucket/a?region=x") == "s3://bucket/a"


def test_the_marker_is_there_while_the_comparison_runs_and_then_gone(tmp_path):
    with Storage(str(tmp_path / "new" / "mine")).marked() as marker:
        assert exists(marker)
    assert not exists(marker)


def test_only_what_lies_inside_is_ever_deleted(tmp_path):
    storage = Storage(str(tmp_path / "mine"))
    inside, outside = tmp_path / "mine" / "tune" / "state", tmp_path / "others"
    for folder in (inside, outside):
        folder.mkdir(parents=True)
    (tmp_path / "mine" / "link").symlink_to(outside)
    places = (
        outside,
        tmp_path / "mine" / ".." / "others",
        tmp_path / "mine" / "link",
        tmp_path / "mine",
        tmp_path,
    )
    for place in (*places, "s3://bucket/mine/tune", "nowhere"):
        storage.remove(str(place))
    assert outside.is_dir() and inside.is_dir()
    storage.remove(str(inside))
    assert not inside.exists() and inside.parent.is_dir()


def test_a_place_that_cannot_be_written_is_said_in_a_line(tmp_path):
    (tmp_path / "file").touch()
    with (
        pytest.raises(ConfigError, match=r"no models can be stored in .*file/mine"),
        Storage(str(tmp_path / "file" / "mine")).marked(),
    ):
        pass


def test_a_folder_is_used_where_it_lies(tmp_path):
    with as_folder(str(tmp_path)) as folder:
        assert folder == tmp_path


def test_a_store_that_is_away_is_said_in_a_line(monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AAA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "BBB")
    away = "s3://bucket/a?endpoint_override=127.0.0.1:9&scheme=http&region=x"
    with pytest.raises(DataError, match=r"s3://bucket/a cannot be fetched") as caught, as_folder(away):
        pass
    assert "BBB" not in str(caught.value)
    assert not exists(away)
