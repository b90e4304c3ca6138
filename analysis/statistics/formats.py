"""How numbers are written for people."""

from __future__ import annotations

import math
from collections.abc import Callable

EMPTY = "–"


def signed(value: float, digits: int = 3) -> str:
    """Decimals with a sign, and a true minus.

    What is not 0 but would be written as 0 gets up to two more decimals: on which side of 0 a bound lies matters.

    >>> signed(-0.0312), signed(0.0), signed(12.34, 1), signed(math.nan), signed(-0.00004)
    ('−0.031', '0.000', '+12.3', '–', '−0.00004')
    """
    if math.isnan(value):
        return EMPTY
    if value and not round(value, digits) and round(value, digits + 2):
        digits += 1 if round(value, digits + 1) else 2
    shown = round(value, digits) + 0.0
    return f"{shown:.{digits}f}" if shown == 0 else f"{shown:+.{digits}f}".replace("-", "−")


def fixed(digits: int, factor: float = 1.0) -> Callable[[float], str]:
    """A writer of so many decimals of factor × value; what is missing is a dash.

    >>> fixed(1, 100)(0.5), fixed(0)(math.nan)
    ('50.0', '–')
    """
    return lambda value: EMPTY if math.isnan(value) else f"{factor * value:,.{digits}f}".replace("-", "−")


def duration(seconds: float) -> str:
    """Seconds as a person says them.

    >>> duration(41.6), duration(600), duration(9000), duration(math.nan)
    ('42 s', '10.0 min', '2.5 h', '–')
    """
    if math.isnan(seconds):
        return EMPTY
    if 0 < seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 6000 else f"{seconds / 3600:.1f} h"
