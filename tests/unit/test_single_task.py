"""A network for each task: what the literature holds multi-task training against."""

from collections.abc import Callable

import pytest
import torch

from ms_automl.comparison.judge import Judge, zeros
from ms_automl.comparison.ledger import PASSES, Ledger
from ms_automl.comparison.run import Role, Run, Status, Trial
from ms_automl.data import MultiTaskData
from ms_automl.meta import Objective
from ms_automl.models import MultiTaskNet, head_specs
from ms_automl.models.archive import Architecture, load, save_model
from ms_automl.models.separate import networks_of, separate
from ms_automl.training import TrainingSettings, task_losses
from trainables import METHODS

Build = Callable[[], MultiTaskNet]
SETTINGS = TrainingSettings(steps=4, batch_size=6, report_every=4)


def test_each_task_has_its_own_network_of_the_same_start(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    network, twin = tiny_network().eval(), tiny_network().eval()
    separate(network)
    images = tiny_data.val.batch(torch.arange(4)).images
    for name, output in network(images).items():
        torch.testing.assert_close(output, twin(images)[name])
    assert (networks_of(network), networks_of(twin)) == (2, 1)
    assert network.removable == {f"of_task.{task}.{name}" for task in ("depth", "kind") for name in twin.removable}


def test_a_task_takes_its_own_gradient_alone(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    network, twin = tiny_network().train(), tiny_network().train()
    method = METHODS["single_task"].build(tiny_data, network, SETTINGS, 0)
    batch = tiny_data.train.batch(torch.arange(6))
    method.loop.backward(batch)
    for task in tiny_data.tasks:
        twin.zero_grad()
        (task.weight * task_losses([task], twin(batch.images), batch)[task.name]).backward()
        for name, expected in twin.trunk.named_parameters():
            found = network.trunk.of_task[task.name].get_parameter(name)
            torch.testing.assert_close(found.grad, expected.grad, rtol=1e-4, atol=1e-6)


def test_several_networks_cost_and_weigh_as_many(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    method = METHODS["single_task"].build(tiny_data, tiny_network(), SETTINGS, 0)
    metrics = method.step()
    assert method.done
    assert method.cost.passes == METHODS["single_task"].planned_cost(tiny_data, SETTINGS).passes
    assert method.cost.passes == 2 * METHODS["dense"].planned_cost(tiny_data, SETTINGS).passes
    assert Objective().density(metrics) == 2.0
    assert zeros(2.0) == "x2"


def test_a_lambda_makes_every_network_sparse(tiny_data: MultiTaskData, tiny_network: Build) -> None:
    settings = TrainingSettings(steps=20, batch_size=6, report_every=20, lr=0.01)
    method = METHODS["single_task"].build(tiny_data, tiny_network(), settings, 0, lambda_=2.0)
    metrics = method.step()
    assert len(method.loop.sparsifier.groups.names) == 2 * len(tiny_network().penalised())
    for task in ("depth", "kind"):
        shares = [value for key, value in metrics.items() if key.startswith(f"sparsity/layer/of_task.{task}.")]
        assert max(shares) > 0
    assert Objective().density(metrics) == pytest.approx(2 * (1 - metrics["sparsity/trunk"]))


def test_a_model_of_several_networks_is_kept_and_read(
    tiny_data: MultiTaskData, tiny_network: Build, tmp_path
) -> None:
    network = tiny_network()
    METHODS["single_task"].build(tiny_data, network, SETTINGS, 0).step()
    heads, shape = head_specs(tiny_data.tasks), (2, 8, 8)
    form = Architecture("small_resnet", {"width": 4, "hidden": 4}, shape, heads, separate=True)
    save_model(network, tmp_path, form)
    images = tiny_data.val.batch(torch.arange(4)).images
    for name, output in load(tmp_path)(images).items():
        torch.testing.assert_close(output, network.eval()(images)[name])


def test_a_row_says_what_a_model_gains_over_a_network_for_each_task(tiny_data: MultiTaskData) -> None:
    tasks = tiny_data.tasks[:1]
    judge = Judge(Objective(), tasks)

    def ended(arm: str, role: Role, loss: float, networks: float = 1.0) -> Run:
        run = Run(arm, 0, "scalar", 100.0, (arm,), 1, role)
        metrics = {"step": 1.0, "sparsity/trunk": 0.0, "sparsity/param": 0.0, "networks": networks}
        for split in ("val", "test"):
            for task in tasks:
                metrics[f"{split}/{task.name}/loss"] = loss
                metrics |= {f"{split}/{task.name}/{name}": loss for name in task.metrics}
        trial = Trial(f"{arm}0", run.name, 0, arm, {}, {}, status=Status.FINISHED)
        run.trials.append(trial)
        for task in tasks:
            metrics[f"probe/{task.name}/loss"] = loss
        trial.metrics = metrics | judge.judge(run, trial, metrics)
        judge.select(run, trial, 1.0)
        return run

    ledger = Ledger({}, PASSES, [])
    ended("dense", Role.REFERENCE, 1.0)
    meta = ended("meta", Role.LEARNED, 0.5)
    assert judge.row(meta, ledger)["delta_m_single"] is None
    single = ended("single-task", Role.BASELINE, 2.0, networks=2.0)
    assert judge.row(single, ledger)["delta_m_single"] == 0.0
    assert judge.row(single, ledger)["density"] == 2.0
    better, worse = judge.row(meta, ledger), judge.row(single, ledger)
    assert better["delta_m_single"] != better["delta_m"]
    assert (better["density_single"], worse["density_single"]) == (0.5, 1.0)  # of two networks
    assert better["macs_ratio_single"] is None  # nobody has measured
    meta.macs_ratio, single.macs_ratio = 0.6, 2.0
    assert judge.row(meta, ledger)["macs_ratio_single"] == pytest.approx(0.3)
    again = Trial("again", meta.name, 0, "meta", {}, {}, status=Status.FINISHED, training_seed=100)
    again.metrics = dict(meta.trials[0].metrics)
    meta.retrained.append(again)
    (kept,) = judge.row(meta, ledger)["retrained"]
    assert kept["delta_m_single"] == better["delta_m_single"]
    assert worse["objective"] == pytest.approx(2.0 + 2.0)
