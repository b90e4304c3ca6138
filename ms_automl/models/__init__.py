"""Networks: one trunk, one head per task."""

from collections.abc import Callable

from ms_automl.models.batch_norm import frozen_buffers
from ms_automl.models.check import check_network
from ms_automl.models.dilated_resnet import dilated_resnet
from ms_automl.models.flops import flops_of_a_sample
from ms_automl.models.network import MultiTaskNet, head_specs
from ms_automl.models.overparam import FactoredConv2d, contract, overparameterise
from ms_automl.models.penalised import Penalised, find_penalised
from ms_automl.models.resnet import small_resnet
from ms_automl.models.weights import Layer, names_of_modules, plain_convolution, shared_weights

NETWORKS: dict[str, Callable[..., MultiTaskNet]] = {
    "small_resnet": small_resnet,
    "dilated_resnet": dilated_resnet,
}

__all__ = [
    "NETWORKS",
    "FactoredConv2d",
    "Layer",
    "MultiTaskNet",
    "Penalised",
    "check_network",
    "contract",
    "dilated_resnet",
    "find_penalised",
    "flops_of_a_sample",
    "frozen_buffers",
    "head_specs",
    "names_of_modules",
    "overparameterise",
    "plain_convolution",
    "shared_weights",
    "small_resnet",
]
