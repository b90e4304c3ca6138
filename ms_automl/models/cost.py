"""What work costs.

The unit is the *pass*: forward and backward of one sample through the dense network. Forward alone counts a
third (a backward is two forwards' work), a validation sample that the λ gradient is taken on counts like a
training sample, and a Hessian-vector product on one sample counts two (docs/protocol.md, 'Budget'). Passes do not
depend on the machine, so a result can be reproduced anywhere.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass


@dataclass
class Cost:
    """Samples counted by what was done with them.

    Attributes:
        train: forward and backward for θ.
        outer: forward and backward on outer samples for the λ gradient.
        hessian: Hessian-vector products on training samples, for the λ gradient.
        forward: forward only: evaluation.
    """

    train: int = 0
    outer: int = 0
    hessian: int = 0
    forward: int = 0

    @property
    def passes(self) -> float:
        """The sum train + outer + 2 hessian + forward / 3."""
        return sum(self.by_kind().values())

    def by_kind(self) -> dict[str, float]:
        """The terms of :attr:`passes`."""
        return {
            "train": float(self.train),
            "outer": float(self.outer),
            "hessian": 2.0 * self.hessian,
            "forward": self.forward / 3,
        }

    def since(self, earlier: Cost) -> Cost:
        """What was added since an earlier count."""
        return Cost(**{kind: count - getattr(earlier, kind) for kind, count in self.to_dict().items()})

    def times(self, count: int) -> Cost:
        """The same on so many networks."""
        return Cost(**{kind: count * samples for kind, samples in self.to_dict().items()})

    def to_dict(self) -> dict[str, int]:
        """As plain numbers."""
        return asdict(self)


def planned_cost(
    *,
    steps: int,
    batch_size: int,
    reports: int,
    val: int,
    test: int,
    outer_updates: int = 0,
    products: int = 0,
    probed: int = 0,
    besides: int = 0,
) -> Cost:
    """Cost of a whole trial before it starts: training, one validation pass a report, one test pass at the end.

    Args:
        steps: optimiser steps.
        batch_size: samples of a training or outer batch.
        reports: evaluations of the validation split.
        val: samples of the validation split.
        test: samples of the test split.
        outer_updates: outer batches that λ's gradient is taken on.
        products: Hessian-vector products, each on one training batch.
        probed: validation samples passed forward between reports.
        besides: forward passes' worth of work of a step for each of its samples.
    """
    return Cost(
        train=steps * batch_size,
        outer=outer_updates * batch_size,
        hessian=products * batch_size,
        forward=reports * val + test + probed + besides * steps * batch_size,
    )
