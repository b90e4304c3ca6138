"""A comparison on three hosts: the real `ray up` of clusters/local.yaml, what runs where, `ray down`."""

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.cluster.hosts import ROOT, SHARED, USER, Hosts, why_not
from tests.integration.command import untimed

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(1500)]

PACKAGES = ("ms_automl", "search_spaces", "trainables", "analysis")
SEARCH = "cd ~/ms_automl && python -m ms_automl.search --preset smoke --address auto"
# One that begins from what another host has stored, one that samples, one without λ, and the learned λ.
ARMS = "path,optuna,prune-taylor,meta"
# A trial takes longer than a host takes to begin its first one: Ray gives a trial that waits for a host to the
# first process that is free elsewhere, and one host would run them all.
LONG = "--set training.steps=480 --set training.report_every=120 --set budget.trials=2"
RUNS = """
import json
from mlflow import MlflowClient
client = MlflowClient("http://127.0.0.1:5000")
(one,) = [e.experiment_id for e in client.search_experiments() if e.name == "ms_automl"]
print("RUNS", json.dumps([
    {"name": run.info.run_name, "status": run.info.status, "tags": dict(run.data.tags)}
    for run in client.search_runs([one], max_results=1000)
]))
"""


def hidden():
    """Where this machine has the project's code: hosts get it from the cluster's launcher alone."""
    found = subprocess.run(
        [sys.executable, "-c", "import ms_automl; print(ms_automl.__path__[0])"],
        cwd="/", capture_output=True, text=True, env={"PATH": "/usr/bin:/bin"},
    )  # fmt: skip
    places = {ROOT, *(Path(line).parent for line in found.stdout.splitlines())}
    return [place / name for place in places for name in PACKAGES]


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


class Cluster:
    """The cluster of clusters/local.yaml, with the addresses, user and key of the hosts filled in.

    Args:
        hosts: the machines.
    """

    def __init__(self, hosts):
        self.hosts = hosts
        self.file = hosts.lab / "local.yaml"
        config = yaml.safe_load((ROOT / "clusters" / "local.yaml").read_text())
        config["provider"] |= {"head_ip": hosts.ips[0], "worker_ips": hosts.ips[1:]}
        config["auth"] |= {"ssh_user": USER, "ssh_private_key": str(hosts.key)}
        # Every host sees all cores of this machine: one trial at a time on each is what it can bear.
        small = "ray start --num-cpus=1 --object-store-memory=200000000"
        for key in ("head_start_ray_commands", "worker_start_ray_commands"):
            config[key] = [command.replace("ray start", small) for command in config[key]]
        self.file.write_text(yaml.safe_dump(config))
        # The packages are there already, as on an image: `make install` finds nothing to do.
        there = f"ln -s {sys.prefix}/* . && touch -d 1year .installed-cluster"
        for ip in hosts.ips:
            hosts.ssh(ip, f"mkdir -p ms_automl/.venv && cd ms_automl/.venv && {there}")
        hosts.run("ray", "get-auth-token", "--generate", timeout=60)

    def up(self):
        self.hosts.run("ray", "up", "-y", self.file, timeout=400)

    def exec(self, command, timeout, check=True):
        return self.hosts.run("ray", "exec", self.file, command, timeout=timeout, check=check).stdout

    def wait_for(self, count):
        """Until so many hosts are in the cluster."""
        script = (
            "import ray; ray.init('auto', log_to_driver=False); print('UP', sum(n['Alive'] for n in ray.nodes()))"
        )
        deadline = time.monotonic() + 300
        while f"UP {count}" not in (said := self.exec(f'python -c "{script}"', 100)):
            assert time.monotonic() < deadline, said[-3000:]

    def down(self):
        """As docs/cluster.md says: the workers' Ray first, which `ray down` does not reach."""
        for ip in self.hosts.ips[1:]:
            self.hosts.ssh(ip, "bash -ic 'ray stop'", check=False)
        self.hosts.run("ray", "down", "-y", self.file, timeout=120)


@pytest.fixture(scope="module")
def cluster():
    if reason := why_not():
        pytest.skip(reason)
    before = left_behind()
    hosts = Hosts(3, hidden())
    try:
        cluster = Cluster(hosts)
        cluster.up()
        cluster.wait_for(3)
        yield cluster
    finally:
        hosts.close()
    assert left_behind() == before
    assert not hosts.processes(1) and not hosts.processes(2) and not hosts.processes(3)


def test_what_hosts_do_not_share_is_said_before_anything_trains(cluster):
    said = cluster.exec(f"{SEARCH} --out comparisons/apart", 200, check=False)
    (line,) = [line for line in said.splitlines() if line.startswith("error:")]
    assert "host 10.77.0.2 does not see what this comparison stores" in line and "--storage" in line
    assert "2 of 3 hosts" in line


def test_a_comparison_runs_on_all_hosts_and_loses_no_record(cluster):
    # What one host has of the code is not what runs: the driver sends its own.
    cluster.hosts.ssh(cluster.hosts.ips[2], "rm -r ~/ms_automl/{ms_automl,search_spaces,trainables}")
    cluster.exec(f"{SEARCH} --arms {ARMS} {LONG} --out comparisons/all --storage {SHARED}", 600)
    folder = "~/ms_automl/comparisons/all"
    head = cluster.hosts.ips[0]
    record = json.loads(cluster.hosts.ssh(head, f"cat {folder}/comparison.json").stdout)
    assert [row["arm"] for row in record["rows"]] == ["dense", *ARMS.split(",")]
    assert {row["status"] for row in record["rows"]} == {"ok"}
    assert record["machine"].endswith("3 slots")
    models = cluster.hosts.ssh(head, f"cd {folder}/best && ls */model.safetensors").stdout.split()
    assert len(models) == 5

    runs = runs_of(cluster, record)
    trials = [run for run in runs if run["tags"].get("ms_automl.kind") == "trial"]
    assert len(trials) == sum(row["trials"] for row in record["rows"])
    assert {run["tags"]["ms_automl.host"] for run in trials} == set(cluster.hosts.ips)
    assert {run["status"] for run in runs} == {"FINISHED"}
    assert len({run["name"] for run in runs}) == len(runs) == 5 + len(trials)


def test_a_host_that_is_cut_off_loses_nothing_and_works_again_when_it_is_back(cluster):
    command = f"{SEARCH} --arms {ARMS} {LONG} --out comparisons/cut --storage {SHARED}"
    cluster.exec(f"{{ setsid nohup bash -c '{command}' > ~/cut.log 2>&1 < /dev/null & }}", 60)
    head = cluster.hosts.ips[0]

    def said():
        return cluster.hosts.ssh(head, "tail -n 20 cut.log; cat ms_automl/comparisons/cut/trials.jsonl").stdout

    def wait_until(happened, seconds):
        deadline = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < deadline, said()[-3000:]
            time.sleep(1)

    # In the middle of an interval, which is seconds: a process that has nothing to do is there as well.
    wait_until(lambda: any("ResourceTrainable.train" in line for line in cluster.hosts.processes(3)), 200)
    cluster.hosts.cut(3)
    cluster.wait_for(2)
    cluster.hosts.mend(3)
    cluster.wait_for(3)  # by the head, which starts Ray there again
    ended = "grep -q useful_share ~/ms_automl/comparisons/cut/comparison.json"
    wait_until(lambda: cluster.hosts.ssh(head, ended, check=False).returncode == 0, 600)
    cut, whole = (
        json.loads(cluster.hosts.ssh(head, f"cat ms_automl/comparisons/{name}/comparison.json").stdout)
        for name in ("cut", "all")
    )
    rows = [[untimed(row) | {"note": ""} for row in record["rows"]] for record in (cut, whole)]
    assert rows[0] == rows[1]
    assert any("lost, others went on" in row["note"] for row in cut["rows"])
    runs = runs_of(cluster, cut)
    assert {run["status"] for run in runs} == {"FINISHED"}
    trials = sum(row["trials"] for row in cut["rows"])
    assert len({run["name"] for run in runs}) == len(runs) == 5 + trials


def test_ray_down_leaves_the_records_and_nothing_of_ray(cluster):
    cluster.down()
    deadline = time.monotonic() + 30
    while any(ray_of(cluster, number) for number in (1, 2, 3)):
        assert time.monotonic() < deadline, [ray_of(cluster, n) for n in (1, 2, 3)]
        time.sleep(1)
    assert any("mlflow" in line for line in cluster.hosts.processes(1))


def runs_of(cluster, record):
    """The runs of a comparison in MLflow, but for its own."""
    (line,) = [line for line in cluster.exec(f"python -c '{RUNS}'", 100).splitlines() if line.startswith("RUNS")]
    parent = record["mlflow"]["run_id"]
    return [
        run for run in json.loads(line.removeprefix("RUNS")) if run["tags"].get("ms_automl.comparison") == parent
    ]


def ray_of(cluster, number):
    """Processes of Ray's on a host."""
    marks = ("raylet", "gcs_server", "ray::", "site-packages/ray/")
    return [line for line in cluster.hosts.processes(number) if any(mark in line for mark in marks)]
