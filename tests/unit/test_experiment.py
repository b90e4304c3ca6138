from pathlib import Path

import pytest
import torch

from ms_automl.comparison.experiment import Experiment
from ms_automl.comparison.run import Suggestion
from ms_automl.config import load_config
from ms_automl.meta import LambdaSchedule
from ms_automl.models.archive import load
from ms_automl.sparsity import ChannelGroups


@pytest.mark.parametrize(
    ("method", "params", "heads"),
    [
        ("single_task", {}, ["segmentation", "depth", "normals"]),
        ("overparam", {}, ["segmentation", "depth", "normals"]),
    ],
)
@pytest.mark.parametrize("sparse", [True, False])
def test_an_experiment_builds_a_trial_counts_it_and_saves_what_loads(
    method: str, params: dict[str, object], heads: list[str], sparse: bool, tmp_path: Path
) -> None:
    settings = ["training.steps=2", "training.report_every=2", "data.args.train=16", "data.args.val=4"]
    experiment = Experiment(load_config("smoke", settings=[*settings, "data.args.test=4"]))
    if sparse and method == "single_task":
        params = params | {"lambda_": 0.5}
    elif sparse:
        layers = ChannelGroups(experiment.network(0)).names
        params = params | {"schedule": LambdaSchedule.constant(dict.fromkeys(layers, 0.5)).to_dict()}
    suggestion = Suggestion(method, params, {})
    trial, network = experiment.build(suggestion, 0, None)
    trial.step()
    assert trial.done
    assert trial.cost.passes == sum(experiment.planned_passes(suggestion, 0).values())
    experiment.save_model(network, 0, tmp_path)
    images = experiment.data(0).val.batch(torch.arange(4)).images
    outputs = network.eval()(images)
    found = load(tmp_path)(images)
    assert sorted(found) == sorted(heads)
    for name in heads:
        torch.testing.assert_close(found[name], outputs[name], rtol=1e-5, atol=1e-5)
