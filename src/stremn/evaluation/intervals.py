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
    rng = np.random.default_rng(seed)
    drawn = rng.integers(0, values.size, (draws, values.size))  # draws s
    weights = objects.astype(np.float64)
    means = (values * weights)[drawn].sum(1) / weights[drawn].sum(1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2]).tolist()
    return Interval(float(values @ weights / weights.sum()), low, high, values.size)
