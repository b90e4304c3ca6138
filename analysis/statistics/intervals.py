"""The interval of a mean over few seeds, and the mean of the middle half."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from scipy import stats


def interval(values: np.ndarray) -> tuple[float, float]:
    """95 % interval of the mean of n values, in their unit; (NaN, NaN) for n < 2.

    Student-t, mean ± t(.975, n - 1) · s / sqrt(n). What it covers at n = 5 (200,000 samples a case) and at n = 20
    (40,000), in %, beside the percentile bootstrap at n = 20: normal values 95.0, 95.0 and 92.8, exponential 88.2,
    91.9 and 89.9, lognormal with σ = 1 82.2, 86.6 and 85.4. The difference of two arms that are skewed alike is
    symmetric, and there it errs to the safe side: 96.6 and 95.3 for two exponentials, 97.4 and 96.1 for two
    lognormals.
    """
    n = len(values)
    if n < 2:
        return math.nan, math.nan
    mean = float(values.mean())
    half = float(stats.t.ppf(0.975, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return mean - half, mean + half


def interquartile_mean(values: pd.Series | np.ndarray) -> float:
    """IQM: the mean of what is left when a quarter, rounded down, is cut at either end; in the values' unit.

    NaN values are left out. NaN below four values, where nothing could be cut. As `scipy.stats.trim_mean(x, .25)`,
    which Agarwal et al. 2021 (arXiv 2108.13264, section 4.3) recommend for few runs.
    """
    kept = np.sort(np.asarray(values, dtype=float))
    kept = kept[~np.isnan(kept)]
    cut = len(kept) // 4
    return float(kept[cut : len(kept) - cut].mean()) if cut else math.nan
