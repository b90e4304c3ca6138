"""What the driver does beside Ray's own loop."""

import re
from types import SimpleNamespace

import pytest

import ms_automl.tuning.run as run
from ms_automl.config import ResourcesSection
from ms_automl.errors import StartError
from ms_automl.storage.remote import Storage
from ms_automl.tuning.run import StartMonitor
from ms_automl.tuning.session import Session


class Trials(list):
    """All trials that there ever were; counts how often somebody goes through them."""

    times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()


class Schedule:
    def __init__(self):
        self.killed, self.lost = [], {}

    def silence(self, trial_id):
        return 100.0 if trial_id == "silent" else 1.0

    def give_up(self, trial_id, why):
        self.killed.append((trial_id, why))

    def started(self, trial_id):
        pass

    def end(self, trial_id, report=None, lost=None):
        self.lost[trial_id] = lost


@pytest.fixture
def said():
    return []


def session(own=True, slots=2):
    return Session(slots, Storage("/models"), None, own)


@pytest.fixture
def monitor(said):
    return StartMonitor(session(), ResourcesSection(start_timeout=60), said.append)


@pytest.fixture
def cluster(said, monkeypatch):
    """Of two hosts with 2 CPUs each."""
    hosts = [{"Alive": True, "Resources": {"CPU": 2.0}}] * 2
    monkeypatch.setattr(run.ray, "nodes", lambda: hosts)
    monkeypatch.setattr(run, "capacity", lambda resources: 4 // resources.cpus_per_trial)
    return lambda cpus: StartMonitor(
        session(own=False, slots=4), ResourcesSection(start_timeout=60, cpus_per_trial=cpus), said.append
    )


def test_silent_trials_are_looked_for_by_the_clock_and_not_at_every_event(monkeypatch, monitor):
    now, killed, schedule = [0.0], [], Schedule()
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(run.ray, "kill", killed.append)
    beside = run.Lifecycle(schedule, Storage("/models"), lambda place: None, 60.0, monitor)
    ended, alive, silent = (
        SimpleNamespace(trial_id=name, status="RUNNING", temporary_state=SimpleNamespace(ray_actor=actor))
        for name, actor in (("ended", None), ("alive", "actor of alive"), ("silent", "actor of silent"))
    )
    trials = Trials([ended, alive, silent])
    for _ in range(1000):  # events of ten seconds
        now[0] += 0.01
        beside.on_step_begin(0, trials)
    assert 18 <= trials.times <= 22  # ten times, for two purposes
    assert set(killed) == {"actor of silent"} and schedule.killed[0][0] == "silent"


def test_a_trial_that_waits_is_told_from_those_that_run_and_have_ended(monkeypatch, monitor):
    now = [0.0]
    monkeypatch.setattr(run.time, "monotonic", lambda: now[0])
    beside = run.Lifecycle(Schedule(), Storage("/models"), lambda place: None, 3600.0, monitor)
    none = SimpleNamespace(ray_actor=None)
    trials = [
        SimpleNamespace(trial_id=status, status=status, temporary_state=none)
        for status in ("TERMINATED", "ERROR", "PENDING")
    ]
    with pytest.raises(StartError, match=r"no trial has begun in 6\d s"):
        for _ in range(100):
            now[0] += 1.0
            beside.on_step_begin(0, trials)
    assert now[0] < 70
    beside.on_trial_start(0, trials, trials[2])
    assert monitor.any_started


def test_on_this_machine_a_comparison_of_which_no_trial_begins_ends_in_one_line(monitor, said):
    monitor.check(0.0, pending=1, running=0)
    monitor.check(59.0, pending=1, running=0)
    with pytest.raises(StartError, match=r"resources\.start_timeout") as caught:
        monitor.check(60.0, pending=1, running=0)
    assert "\n" not in str(caught.value) and "worker-*.err" in str(caught.value) and not said


def test_once_one_has_begun_it_is_said_and_waited_for_and_said_more_and_more_rarely(monitor, said):
    monitor.check(0.0, pending=1, running=0)
    monitor.trial_started()
    for now in range(1, 1000):
        monitor.check(float(now), pending=1, running=1)  # of two slots
    waited = [int(re.search(r"for (\d+) s", line)[1]) for line in said]
    assert waited == [60, 120, 240, 480, 960]
    monitor.trial_started()
    monitor.check(1000.0, pending=1, running=1)
    monitor.check(1059.0, pending=1, running=1)
    assert len(said) == 5


def test_one_for_which_there_is_no_room_waits_without_a_word(monitor, said):
    monitor.trial_started()
    for now in range(0, 10_000, 10):
        monitor.check(float(now), pending=1, running=2)
    monitor.check(10_000.0, pending=0, running=1)
    monitor.check(10_059.0, pending=1, running=1)
    assert not said


def test_on_a_cluster_it_is_said_what_it_asks_for_and_hosts_are_waited_for(cluster, said):
    monitor = cluster(2)
    for now in (0.0, 60.0, 90.0, 120.0):
        monitor.check(now, pending=1, running=0)
    assert len(said) == 2 and "no trial has begun for 60 s" in said[0] and "autoscaler" in said[0]
    assert "2 CPUs" in said[0] and "no host that is up" not in said[0]


def test_on_a_cluster_no_host_of_which_is_large_enough_that_is_said(cluster, said):
    monitor = cluster(8)
    monitor.check(0.0, pending=1, running=0)
    monitor.check(60.0, pending=1, running=0)
    assert "no host that is up has the 8 CPUs" in said[0]


MEMORY = """1 worker(s) were killed due to the node running low on memory. Memory on the node (ID: 33fa)
was 22.08GB used / 23.54GB limit (0.95)
OOM kill reason: Memory usage 3098279936B exceeded threshold of 505521248B
"""


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (f"Failure # 1 (occurred at noon)\n{MEMORY}", "memory ran out on its host (22.08GB of 23.54GB in use)"),
        (f"Failure # 1\n{MEMORY}Failure # 2\nThe actor died unexpectedly", "see the log in the tune folder"),
        (
            "Failure # 1\nTask was killed due to the node running low on memory.\n",
            "memory ran out on its host, and",
        ),
        (None, "see the log in the tune folder"),
    ],
)
def test_why_a_process_is_gone_is_what_ray_said_of_it_last(tmp_path, text, said):
    schedule, file = Schedule(), tmp_path / "error.txt"
    if text is not None:
        file.write_text(text)
    trial = SimpleNamespace(trial_id="t", error_file=str(file) if text is not None else None)
    run.Lifecycle(schedule, Storage("/models"), lambda place: None, 60.0, None).on_trial_error(0, [], trial)
    assert said in schedule.lost["t"] and schedule.lost["t"].startswith("the trial's process died")
