"""Which channels are one: union-find over numbers, and those that must stay."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]

ABSENT = 0
"""The number of everything that is not followed: it stays, and so does what is one with it."""


class Channels:
    """Numbers of channels; those that are one have one root.

    Attributes:
        why: by root, what made a channel one that must stay.
    """

    def __init__(self) -> None:
        self._parent: Ids = np.zeros(1, np.int64)
        self.why: dict[int, str] = {ABSENT: "what is not followed"}

    def new(self, count: int) -> Ids:
        """[count] numbers of channels that are one with no other."""
        first = len(self._parent)
        numbers = np.arange(first, first + count)
        self._parent = np.concatenate([self._parent, numbers])
        return numbers

    def find(self, numbers: Ids) -> Ids:
        """The roots of numbers, of any shape."""
        while True:
            roots = self._parent[numbers]
            if np.array_equal(roots, numbers):
                return roots
            numbers = roots

    def join(self, one: Ids, other: Ids, why: str) -> None:
        """Say that channels are one, entry by entry; what is one with one that must stay, must.

        Args:
            one: numbers, of any shape.
            other: of the same shape.
            why: what makes them stay where one of the two is ABSENT.
        """
        one, other = (numbers.ravel() for numbers in np.broadcast_arrays(one, other))
        while True:
            pair = np.sort([self.find(one), self.find(other)], axis=0)
            absent, apart = pair[0] == ABSENT, pair[0] != pair[1]
            if (absent & apart).any():
                self.fix(pair[1][absent & apart], why)
            if not (apart := apart & ~absent).any():
                return
            (first, second), unique = pair[:, apart], np.unique(pair[1][apart], return_index=True)[1]
            first, second = first[unique], second[unique]  # a root gets one parent, the others a turn later
            self._parent[second] = first
            for lower, upper in zip(first.tolist(), second.tolist(), strict=True):
                if upper in self.why:
                    self.fix(np.array([lower]), self.why[upper])

    def fix(self, numbers: Ids, why: str) -> None:
        """Say that channels must stay."""
        for root in np.unique(self.find(numbers)):
            self.why.setdefault(int(root), why)

    def fixed(self, numbers: Ids) -> NDArray[np.bool_]:
        """Whether they must stay."""
        return np.isin(self.find(numbers), np.fromiter(self.why, np.int64))
