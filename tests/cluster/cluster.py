"""The cluster of clusters/local.yaml on three hosts, and comparisons on it whose hosts are cut off."""

import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import yaml

from tests.cluster.hosts import ROOT, SHARED, USER, Hosts
from tests.faults.comparison import Comparison
from tests.integration.command import Ended

PACKAGES = ("ms_automl", "search_spaces", "trainables", "analysis")
# One that begins from what another host has stored, one that samples, one without λ, and the learned λ.
ARMS = "path,optuna,prune-taylor,meta"
# A trial takes longer than a host takes to begin its first one: Ray gives a trial that waits for a host to the
# first process that is free elsewhere, and one host would run them all.
SETTINGS = [
    "training.steps=480", "training.report_every=120", "budget.trials=2", "resources.checkpoint_every=0",
    "network.factory=counted:network", "network.args={}",
]  # fmt: skip
RUNS = """
import json
from mlflow import MlflowClient
client = MlflowClient("http://127.0.0.1:5000")
(one,) = [e.experiment_id for e in client.search_experiments() if e.name == "ms_automl"]
print("RUNS", json.dumps([
    {"name": run.info.run_name, "status": run.info.status, "tags": dict(run.data.tags)}
    for run in client.search_runs([one], max_results=5000)
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

    def runs_of(self, record):
        """The runs of a comparison in MLflow, but for its own."""
        lines = self.exec(f"python -c '{RUNS}'", 100).splitlines()
        (line,) = [line for line in lines if line.startswith("RUNS")]
        parent = record["mlflow"]["run_id"]
        runs = json.loads(line.removeprefix("RUNS"))
        return [run for run in runs if run["tags"].get("ms_automl.comparison") == parent]

    def down(self):
        """As docs/cluster.md says: the workers' Ray first, which `ray down` does not reach."""
        for ip in self.hosts.ips[1:]:
            self.hosts.ssh(ip, "bash -ic 'ray stop'", check=False)
        self.hosts.run("ray", "down", "-y", self.file, timeout=120)


@contextlib.contextmanager
def three_hosts():
    """A cluster that is up, and gone afterwards."""
    hosts = Hosts(3, hidden())
    try:
        cluster = Cluster(hosts)
        cluster.up()
        cluster.wait_for(3)
        yield cluster
    finally:
        hosts.close()


class OnHosts(Comparison):
    """A small comparison on a cluster, started on its head, in a folder that all hosts share.

    Args:
        cluster: that is up.
        name: of the folder.
        seed: of the random moments.
    """

    def __init__(self, cluster, name, seed=0):
        folder = cluster.hosts.shared / name
        folder.mkdir()
        folder.chmod(0o777)
        self.place = SHARED / name  # where the hosts see the folder
        super().__init__(folder, seed, work=self.place / "work")
        self.cluster = cluster

    def start(self):
        sets = " ".join(f"--set {setting}" for setting in SETTINGS)
        search = f"python -m ms_automl.search --preset smoke --address auto --arms {ARMS} {sets} --out out"
        command = f"cd {self.place}; PYTHONPATH=~/ms_automl {search} > said 2>&1 & echo host1 $! > driver"
        command += "; wait $!; echo $? > ended.new; mv ended.new ended"
        self.cluster.exec(f"{{ setsid nohup bash -c '{command}' > /dev/null 2>&1 < /dev/null & }}", 60)
        self.search = Ended(self.folder)
        return self

    @property
    def running(self):
        return not (self.folder / "ended").exists()

    def wait(self):
        deadline = time.monotonic() + 1200
        while self.running:
            assert time.monotonic() < deadline, (self.folder / "said").read_text()[-3000:]
            time.sleep(0.5)
        self.search.status = int((self.folder / "ended").read_text())
        self.said += (self.folder / "said").read_text().splitlines()
        return self

    def cut_one_off(self):
        """Cut a random worker off in the middle of a trial's interval; its number, None where all has ended."""
        number = self.random.choice([2, 3])
        while self.running:  # a process that has nothing to do is there as well
            if any("ResourceTrainable.train" in line for line in self.cluster.hosts.processes(number)):
                self.cluster.hosts.cut(number)
                self.injected += 1
                return number
            time.sleep(0.05)
        return None

    def _runs(self, record):
        return [(run["name"], run["status"]) for run in self.cluster.runs_of(record)]


def host_cut_off(cluster, name, seed, back=False):
    """A worker host is cut off from the network at a random moment, for good."""
    comparison = OnHosts(cluster, name, seed).start()
    comparison.wait_for_reports(comparison.random.randrange(1, 24))
    comparison.some_time(0, 8)
    number = comparison.cut_one_off()
    if back and number:
        cluster.wait_for(2)
        comparison.some_time(0, 10)
        cluster.hosts.mend(number)
        cluster.wait_for(3)  # by the head, which starts Ray there again
    comparison.wait()
    if not back and number:
        cluster.hosts.mend(number)
        cluster.wait_for(3)
    return comparison


def host_cut_off_and_back(cluster, name, seed):
    """A worker host is cut off at a random moment, and comes back."""
    return host_cut_off(cluster, name, seed, back=True)


HOST_FAULTS: dict[str, Callable[[Cluster, str, int], OnHosts]] = {
    "a host of three cut off from the network": host_cut_off,
    "a host of three cut off, and back": host_cut_off_and_back,
}
