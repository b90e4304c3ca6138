"""One file per way of training: plain PyTorch, no Ray."""

from collections.abc import Callable

from ms_automl.training import Trainable
from trainables.dense import Dense
from trainables.fixed_lambda import FixedLambda
from trainables.meta_sparsity import MetaSparsity
from trainables.mtml import MultiTaskMeta
from trainables.overparam import overparam
from trainables.pruned import Pruned
from trainables.single_task import single_task
from trainables.transfer import Transfer

METHODS: dict[str, Callable[..., Trainable]] = {
    "dense": Dense,
    "fixed_lambda": FixedLambda,
    "meta_sparsity": MetaSparsity,
    "mtml": MultiTaskMeta,
    "overparam": overparam,
    "pruned": Pruned,
    "single_task": single_task,
    "transfer": Transfer,
}

__all__ = [
    "METHODS",
    "Dense",
    "FixedLambda",
    "MetaSparsity",
    "MultiTaskMeta",
    "Pruned",
    "Transfer",
    "overparam",
    "single_task",
]
