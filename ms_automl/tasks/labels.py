"""Labels that do not count: no loss and no metric of a task, built in or a user's, ever sees what they hold."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

LabelFunction = Callable[[Tensor, Tensor, Tensor], Tensor]
"""Of prediction, target and valid."""

CLASS, VALUE = 0, 0.5
"""What stands in the place of such labels: 0.5 has a reciprocal, a logarithm and a logit, which 0 has not."""


def cleared(target: Tensor, valid: Tensor, fill: float | None = None) -> Tensor:
    """A batch of targets without what its labels that do not count hold.

    That may be anything, 255 or NaN: it must index no logits, and the gradient at a NaN is NaN times 0.

    Args:
        target: [B, ...] or [B, C, ...].
        valid: [B, ...] bool.
        fill: what stands there instead; None for :data:`CLASS` or :data:`VALUE`.
    """
    shape = (valid.shape[0], *[1] * (target.ndim - valid.ndim), *valid.shape[1:])
    if fill is None:
        fill = VALUE if target.is_floating_point() else CLASS
    return torch.where(valid.reshape(shape), target, fill)


@dataclass(frozen=True)
class CountedLoss:
    """A loss of the labels that count, exactly 0 with a gradient of 0 where a batch has none.

    Attributes:
        function: is given cleared targets, and always a label that counts.
    """

    function: LabelFunction

    def __call__(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """A scalar."""
        some = valid.any()
        # A mean over no label is 0/0, and so is its gradient. It is taken over all of them then, and times 0; to
        # ask whether there is one would wait for a GPU.
        loss = self.function(prediction, cleared(target, valid), valid | ~some)
        return torch.where(some, loss, 0.0)


@dataclass(frozen=True)
class CountedStatistic:
    """An additive statistic of the labels that count; what is not finite of a batch without any is 0.

    Attributes:
        function: is given cleared targets.
    """

    function: LabelFunction

    def __call__(self, prediction: Tensor, target: Tensor, valid: Tensor) -> Tensor:
        """Any shape."""
        found = self.function(prediction, cleared(target, valid), valid)
        return torch.where(valid.any() | torch.isfinite(found), found, 0.0)
