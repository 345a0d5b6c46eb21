"""Bootstrap intervals over sequences, and paired differences: is a difference more than chance?

Sequences are what a data set samples from the world, so they are what is drawn again; objects of
one sequence stay together. The mean is over objects, as DAVIS reports it.

Percentile intervals are narrow where sequences are few: those of 95 % hold the truth in about 83 %
of samples of five normal values, 89 % of eight, 94 % of twenty.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from stremn.errors import StremnError

DRAWS = 10_000
"""Bootstrap samples."""

_DRAWN_AT_ONCE = 1 << 20
"""Indices that are drawn at a time, so that many sequences do not fill the memory."""


@dataclass(frozen=True)
class Interval:
    """A mean with its bootstrap percentile interval, over `samples` independent items.

    One or two samples say nothing of how far others lie from them.
    """

    mean: float
    low: float
    high: float
    samples: int

    @property
    def known(self) -> bool:
        """Whether there are samples enough for an interval to mean something."""
        return self.samples > 2

    @property
    def tie(self) -> bool:
        """Whether the interval includes zero or is unknown: the difference may be chance."""
        return not self.known or self.low <= 0.0 <= self.high


def mean_interval(
    values: Float[np.ndarray, " s"],
    objects: Int[np.ndarray, " counts"],
    *,
    level: float = 0.95,
    draws: int = DRAWS,
    seed: int = 0,
) -> Interval:
    """Return the mean over objects and its bootstrap percentile interval over sequences.

    Args:
        values: mean over the objects of each sequence; or differences of such means, to test a
            paired difference.
        objects: number of objects of each sequence, its weight.
        level: coverage.
        draws: bootstrap samples.
        seed: of the draws; the same seed draws the same sequences, so that rows compare.

    Raises:
        StremnError: no sequence, or counts that do not fit.
    """
    if values.size == 0 or values.shape != objects.shape:
        raise StremnError(
            f"{values.size} values with {objects.size} object counts; each sequence needs one of "
            "each, and at least one sequence is needed."
        )
    weights = objects.astype(np.float64)
    means = _drawn_means(values, weights, draws, np.random.default_rng(seed))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(float(values @ weights / weights.sum()), low, high, values.size)


def _drawn_means(
    values: Float[np.ndarray, " s"],
    weights: Float[np.ndarray, " s"],
    draws: int,
    rng: np.random.Generator,
) -> Float[np.ndarray, " draws"]:
    """Return the weighted mean of each bootstrap sample.

    The numbers do not depend on how many samples are drawn at a time.
    """
    products, count = values * weights, values.size
    at_once = max(1, _DRAWN_AT_ONCE // count)
    means = np.empty(draws)
    for start in range(0, draws, at_once):
        drawn = rng.integers(0, count, (min(at_once, draws - start), count))
        means[start : start + at_once] = products[drawn].sum(1) / weights[drawn].sum(1)
    return means
