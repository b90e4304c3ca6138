"""What `--plan` says, and where it gets it from."""

import io

import pytest
import torch
from rich.console import Console

from ms_automl.comparison.events import EventLog, TrialEvents
from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.run import Suggestion
from ms_automl.config import load_config
from ms_automl.driver.plan import plan, show, throughput_of
from ms_automl.driver.simulation import simulate
from ms_automl.errors import BudgetError, ConfigError
from ms_automl.models import flops_of_a_sample
from ms_automl.search import main
from ms_automl.storage.tensors import save
from tests.unit.driven import FREE, TUNED

TINY = [
    "data.args.train=32",
    "data.args.val=16",
    "data.args.test=16",
    "training.steps=8",
    "training.report_every=2",
]
GPU = "resources.gpus_per_trial=0.5"


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def config(*settings, arms=("random",), seeds=1):
    return load_config("smoke", arms=list(arms), seeds=seeds, settings=[*TINY, *settings])


def text_of(one, width=80):
    console = Console(file=io.StringIO(), width=width)
    show(one, console)
    return console.file.getvalue()


@pytest.fixture
def absent_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)


def test_the_pace_is_measured_on_the_device_that_trains(monkeypatch):
    throughput = throughput_of(Experiment(config()))
    assert throughput.train > 0 and throughput.forward > 0 and throughput.setup > 0
    assert "30 dense training steps" in throughput.source and "CPU" in throughput.source
    monkeypatch.setattr("ms_automl.driver.plan.PATIENCE", 0.0)
    hurried = throughput_of(Experiment(config()))
    assert "a dense training step and" in hurried.source, "a step that takes longer than that is measured once"


def test_without_the_device_a_stated_rate_is_assumed(absent_gpu):
    experiment = Experiment(config(GPU))
    train, forward = flops_of_a_sample(experiment.network(0), experiment.data(0).image_shape)
    default, fast = throughput_of(experiment), throughput_of(experiment, 50.0)
    assert fast.train == pytest.approx(train / 50e12) and fast.forward == pytest.approx(3 * forward / 50e12)
    assert default.train == pytest.approx(5 * fast.train)
    assert "assumed" in default.source and "no GPU" in default.source and "--tflops" in default.source


def test_hours_are_passes_times_the_pace(absent_gpu):
    one = plan(config(GPU), tflops=1e-6)
    share = one.outcome.arms["random"]
    train, rest = 3 * 8 * 16, 3 * (4 * 16 + 16) / 3
    assert (share.trials, share.passes) == (3, pytest.approx(train + rest))
    assert share.device_seconds == pytest.approx(train * one.throughput.train + rest * one.throughput.forward)
    hours = one.outcome.whole.device_seconds * 0.5 / 3600
    assert f"GPU-hours: {hours:.2f} (0.5 a trial)" in text_of(one)


@pytest.mark.parametrize("unit", ["passes", "flops", "device_seconds"])
def test_the_budget_of_every_unit_is_planned_in_that_unit(unit, absent_gpu):
    settings = config(f"budget.unit={unit}", "budget.trials=5", GPU, arms=("random", "random-2x"), seeds=2)
    one = plan(settings, tflops=1e-6)  # trials of hours: in device seconds a sampler's time is charged as well
    random, twice = one.outcome.arms["random"], one.outcome.arms["random-2x"]
    assert random.spent / one.trial_cost == pytest.approx(2 * 5, rel=0.15)
    assert twice.spent / one.trial_cost == pytest.approx(4 * 5, rel=0.15)


def test_more_slots_than_said_change_nothing(absent_gpu):
    one = plan(config(GPU, arms=("random", "fixed"), seeds=3), slots=6)
    wide = plan(config(GPU, arms=("random", "fixed"), seeds=3), slots=60)
    assert one.unhurried.concurrency == 6 and wide.outcome.seconds == one.outcome.seconds
    single = plan(config(GPU, arms=("random", "fixed"), seeds=3), slots=1)
    assert single.outcome.seconds > 3 * one.outcome.seconds
    assert "on 6, beyond which nothing gets faster" in " ".join(text_of(single).split())


def test_storage_is_what_trials_really_leave(tmp_path, absent_gpu):
    arms, wide = ("random", "topk"), "network.args.width=32"
    one = plan(config(GPU, wide, "budget.retrain=1", arms=arms))
    experiment = Experiment(config(wide, arms=arms))
    method, network = experiment.build(Suggestion("dense", {}, {}), 0, None)
    method.step()
    experiment.save_model(network, 0, tmp_path / "model")
    save({"method": method.state_dict()}, tmp_path / "state", "state")
    weigh = {part: sum(f.stat().st_size for f in (tmp_path / part).iterdir()) for part in ("model", "state")}
    assert one.model == pytest.approx(weigh["model"], rel=0.05)
    assert one.state == pytest.approx(weigh["state"], rel=0.05)
    whole = one.outcome.whole
    assert one.stored == (whole.trials + 2) * one.model + whole.stopped * one.state and whole.stopped > 0


def test_bounds_that_are_measured_later_cost_nothing(absent_gpu):
    arms = ["random", "optuna", "meta", "meta-gradient"]
    stated, measured = (plan(config(GPU, *more, arms=arms)).outcome.whole for more in ((), ("lambda=auto",)))
    assert (stated.trials, stated.passes) == (measured.trials, measured.passes)


def test_the_arms_that_stop_trials_are_known_as_such(absent_gpu):
    arms = FREE
    assert set(plan(config(GPU, "budget.trials=6", TUNED, arms=arms)).outcome.stopping) == {"topk", "optuna-asha"}


@pytest.mark.parametrize("width", [80, 100])
def test_everything_fits_on_a_screen_whole(width, absent_gpu):
    arms = FREE
    text = text_of(plan(config(GPU, "budget.trials=6", TUNED, arms=arms)), width)
    assert "…" not in text and max(map(len, text.splitlines())) <= width
    names = [line.split()[0] for line in text.splitlines() if line.split()]
    assert set(arms) <= set(names) and "all" in names


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        ("--plan --slots 0", "`slots > 0` must hold"),
        ("--plan --tflops -1", "`tflops > 0` must hold"),
        ("--tflops 5", "add --plan"),
        ("--plan --resume", "name its folder"),
        ("--plan --data-dir nowhere", "is no folder"),
        ("--plan --arms optna", "did you mean 'optuna'"),
        ("--plan --set budget.trials=1", "too small for 'meta'"),
    ],
)
def test_bad_input_gets_one_line(arguments, told, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["--preset", "smoke", *arguments.split(), *(f"--set={setting}" for setting in TINY)]) == 2
    error = capsys.readouterr().err
    assert told in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_plan_touches_nothing(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens
    arguments = ["--preset", "smoke", "--arms", "random,meta", "--plan", "--out", "out", "--slots", "2"]
    assert main([*arguments, *(f"--set={setting}" for setting in TINY)]) == 0
    assert not list(tmp_path.iterdir())
    assert "meta" in capsys.readouterr().out


def test_a_plan_that_raises_is_a_comparison_that_would(absent_gpu):
    with pytest.raises(BudgetError, match="too small for 'meta'"):
        plan(config("budget.trials=1", GPU, arms=("meta",)))
    with pytest.raises(ConfigError, match="at most the val split's"):
        plan(config("training.batch_size=20", GPU))


def test_a_comparison_that_has_ended_has_nothing_left_to_plan(tmp_path, absent_gpu):
    one = config(GPU, arms=("random", "fixed"))
    comparison, _ = simulate(Experiment(one), throughput_of(Experiment(one)), 2)
    log = EventLog(tmp_path)
    log.charged(*comparison.ledger)
    journal = TrialEvents(log, comparison)
    for trial in comparison.trials.values():
        journal.trial_ended(comparison.runs[trial.run], trial)
        journal.trial_stored(comparison.runs[trial.run], trial)
    before = {path: path.read_text() for path in tmp_path.iterdir()}
    assert "5 trials have ended, and nothing is left to run" in text_of(plan(one, resumed=tmp_path))
    assert {path: path.read_text() for path in tmp_path.iterdir()} == before
