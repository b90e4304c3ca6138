"""A comparison on three hosts: the real `ray up` of clusters/local.yaml, what runs where, `ray down`."""

import json
import re
import time
from pathlib import Path

import pytest

from tests.cluster.cluster import ARMS, HOST_FAULTS, OnHosts, three_hosts
from tests.cluster.hosts import SHARED, why_not

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

SEARCH = "cd ~/ms_automl && python -m ms_automl.search --preset smoke --address auto"


def left_behind():
    """What a test could leave on this machine: mounts, network devices, files of Ray's."""
    devices = {entry.name for entry in Path("/sys/class/net").iterdir()}
    mounts = {line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()}
    mounts = {mount for mount in mounts if "pytest-of-" not in mount}  # another test's, beside this one
    files = {
        str(path)
        for pattern in ("ray_ssh_*", "ray-config-*", "ms-automl-hosts-*")
        for path in Path("/tmp").glob(pattern)
    }
    return devices | mounts | files


@pytest.fixture(scope="module")
def cluster():
    if reason := why_not():
        pytest.skip(reason)
    before = left_behind()
    with three_hosts() as cluster:
        yield cluster
    assert left_behind() == before
    assert not any(cluster.hosts.processes(number) for number in (1, 2, 3))


def test_what_hosts_do_not_share_is_said_before_anything_trains(cluster):
    said = cluster.exec(f"{SEARCH} --out comparisons/apart", 200, check=False)
    said = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", said)  # a progress bar clears its lines on this terminal
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert "host 10.77.0.2 does not see what this comparison stores" in line and "--storage" in line
    assert "2 of 3 hosts" in line


@pytest.fixture(scope="module")
def whole(cluster):
    # What one host has of the code is not what runs: the driver sends its own.
    cluster.hosts.ssh(cluster.hosts.ips[2], "rm -r ~/ms_automl/{ms_automl,search_spaces,trainables}")
    return OnHosts(cluster, "whole").start().wait()


def test_a_comparison_runs_on_all_hosts_and_loses_no_record(cluster, whole):
    assert whole.search.status == 0, whole.said
    record = whole.search.record
    assert [row["arm"] for row in record["rows"]] == ["dense", *ARMS.split(",")]
    assert {row["status"] for row in record["rows"]} == {"ok"}
    assert record["machine"].endswith("3 slots")
    assert len([*(whole.search.out / "best").glob("*/model.safetensors")]) == 5

    runs = cluster.runs_of(record)
    trials = [run for run in runs if run["tags"].get("ms_automl.kind") == "trial"]
    assert len(trials) == sum(row["trials"] for row in record["rows"])
    assert {run["tags"]["ms_automl.host"] for run in trials} == set(cluster.hosts.ips)
    assert {run["status"] for run in runs} == {"FINISHED"}
    assert len({run["name"] for run in runs}) == len(runs) == 5 + len(trials)


def test_unseen_tasks_are_taken_up_on_the_cluster(cluster, whole):
    few = "--arms meta --task edges --shots 4,8,all --steps 4 --modes frozen --draws 1"
    stage = f"python -m ms_automl.transfer --comparison out --address auto --storage {SHARED}/kept {few}"
    cluster.exec(f"cd {whole.place}; PYTHONPATH=~/ms_automl:. {stage}", 400)
    record = json.loads((whole.folder / "out" / "transfer" / "transfer.json").read_text())
    assert [row["status"] for row in record["rows"]] == ["FINISHED"] * 2 * 2 * 3  # arms, weights, shots
    kept = cluster.hosts.shared / "kept" / "out" / "transfer"
    assert len([*kept.glob("models/*/model.safetensors")]) == 2
    assert (kept / "report" / "index.html").is_file()


def test_a_host_that_is_cut_off_loses_nothing_and_works_again_when_it_is_back(cluster, whole):
    cut = HOST_FAULTS["a host of three cut off, and back"](cluster, "cut", 0)
    assert cut.search.status == 0 and cut.injected == 1, cut.said
    outcome = cut.outcome(whole)
    assert not outcome.lost + outcome.doubled + outcome.wrong
    assert outcome.equal and abs(outcome.error) < 0.1
    assert any("lost, others went on" in row["note"] for row in cut.search.record["rows"])


def test_ray_down_leaves_the_records_and_nothing_of_ray(cluster):
    cluster.down()
    deadline = time.monotonic() + 30
    while any(ray_of(cluster, number) for number in (1, 2, 3)):
        assert time.monotonic() < deadline, [ray_of(cluster, n) for n in (1, 2, 3)]
        time.sleep(1)
    assert any("mlflow" in line for line in cluster.hosts.processes(1))


def ray_of(cluster, number):
    """Processes of Ray's on a host."""
    marks = ("raylet", "gcs_server", "ray::", "site-packages/ray/")
    return [line for line in cluster.hosts.processes(number) if any(mark in line for mark in marks)]
