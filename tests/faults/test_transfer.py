"""The head is lost in the middle of the transfer stage, with its disk and MLflow: another one goes on."""

import json
import os
import shutil
import signal
import time

import pytest

from ms_automl.callbacks.backup import copied
from ms_automl.comparison.events import FILE
from ms_automl.storage.remote import storage_of
from tests.faults.bucket import KEYS, Bucket
from tests.integration.command import TINY, Search, transfer

pytestmark = [
    pytest.mark.fault,
    pytest.mark.timeout(600),
    pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SADeprecationWarning"),
]


@pytest.fixture
def bucket(monkeypatch):
    for name, value in KEYS.items():
        monkeypatch.setenv(name, value)
    bucket = Bucket()
    yield bucket
    bucket.close()


def finished(copy):
    """The trials that a copy of the log says have come to their end."""
    events = map(json.loads, (copy or {}).get(FILE, b"").splitlines())
    return [one["trial"] for one in events if one["event"] == "trial" and one["trial"]["status"] == "FINISHED"]


def test_what_was_copied_is_not_done_again(bucket, tmp_path):
    kept = ("--storage", bucket.uri)
    search = Search(tmp_path, "--arms", "meta", *kept, settings=[*TINY, "budget.trials=2"]).wait()
    assert search.status == 0, search.shown + search.errors
    options = ["--comparison", "out", "--task", "edges", "--shots", "4,8,all", "--steps", "4"]
    options += ["--modes", "frozen,joint", "--draws", "1", *kept]
    storage = storage_of(bucket.uri, tmp_path / "out").below("transfer")
    stage, done = transfer(tmp_path, *options), []
    deadline = time.monotonic() + 200
    while len(done) < 2:
        assert time.monotonic() < deadline and stage.poll() is None, stage.communicate()
        time.sleep(0.1)
        done = finished(copied(storage, [FILE]))
    os.killpg(stage.pid, signal.SIGKILL)
    stage.communicate()
    done = finished(copied(storage, [FILE]))
    shutil.rmtree(tmp_path / "out")
    (tmp_path / "mlflow.db").unlink()

    again = Search(tmp_path, "--resume", *kept, preset=None, settings=()).wait()
    assert again.status == 0, again.shown + again.errors
    stage = transfer(tmp_path, *options)
    shown, errors = stage.communicate(timeout=300)
    assert (stage.returncode, errors) == (0, ""), shown + errors
    count = 2 * 3 * 3  # arms; one of two modes with new weights too; shots
    assert f"{count} adaptations, {len(done)} done, {count - len(done)} to run" in shown
    rows = json.loads((tmp_path / "out" / "transfer" / "transfer.json").read_text())["rows"]
    assert len(rows) == count and {row["status"] for row in rows} == {"FINISHED"}
    passes = {tuple(row[name] for name in done[0]["params"]["adaptation"]): row["passes"] for row in rows}
    assert all(passes[tuple(one["params"]["adaptation"].values())] == one["passes"] for one in done)
    weights = [name for name in bucket.names() if "/transfer/models/" in name and name.endswith(".safetensors")]
    models = {name.split("/")[-2] for name in weights}
    assert any(name.endswith("/transfer/report/index.html") for name in bucket.names())
    assert {name.rpartition("-")[0] for name in models} == {"dense-0", "meta-0"}
