"""One file per way of training: plain PyTorch, no Ray."""

from collections.abc import Callable

from ms_automl.training import Trainable
from trainables.dense import Dense
from trainables.fixed_lambda import FixedLambda
from trainables.meta_sparsity import MetaSparsity
from trainables.pruned import Pruned

METHODS: dict[str, Callable[..., Trainable]] = {
    "dense": Dense,
    "fixed_lambda": FixedLambda,
    "meta_sparsity": MetaSparsity,
    "pruned": Pruned,
}

__all__ = ["METHODS", "Dense", "FixedLambda", "MetaSparsity", "Pruned"]
