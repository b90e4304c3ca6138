"""What the driver does beside Ray's own loop."""

from types import SimpleNamespace

import ms_automl.tuning.lifecycle as lifecycle
from ms_automl.storage import Storage


class Trials(list):
    """All trials that there ever were; counts how often somebody goes through them."""

    times = 0

    def __iter__(self):
        self.times += 1
        return super().__iter__()


class Router:
    def __init__(self):
        self.killed = []

    def silence(self, trial_id):
        return 100.0 if trial_id == "silent" else 1.0

    def gone(self, trial_id, message):
        self.killed.append((trial_id, message))


def test_silent_trials_are_looked_for_by_the_clock_and_not_at_every_event(monkeypatch):
    now, killed, router = [0.0], [], Router()
    monkeypatch.setattr(lifecycle.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(lifecycle.ray, "kill", killed.append)
    beside = lifecycle.Lifecycle(router, Storage("/models"), lambda place: None, 60.0)
    ended, alive, silent = (
        SimpleNamespace(trial_id=name, temporary_state=SimpleNamespace(ray_actor=actor))
        for name, actor in (("ended", None), ("alive", "actor of alive"), ("silent", "actor of silent"))
    )
    trials = Trials([ended, alive, silent])
    for _ in range(1000):  # events of ten seconds
        now[0] += 0.01
        beside.on_step_begin(0, trials)
    assert 9 <= trials.times <= 11
    assert set(killed) == {"actor of silent"} and router.killed[0][0] == "silent"
