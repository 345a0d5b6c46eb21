"""How a read compares queries with keys."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Scale = Literal["sqrt", "none", "log"]
"""What the products of Eq 5 are multiplied with: see `sharpness`."""


REFERENCE = 768
"""Positions at which the scales "log" and "sqrt" are equal: three slots of 16 x 16."""


Similarity = Literal["dot", "squared-l2"]
"""What a query and a key are compared by: q . k, or -|q - k|^2."""


Pooling = Literal["positions", "displacements"]
"""Whether each position of a query finds its own matches, or all of them move together."""


@dataclass(frozen=True)
class Matching:
    """How a read compares queries with keys: part of a network, the same for every frame.

    `similarity` "dot" is that of Eq 5 and STM, "squared-l2" that of STCN. `scale` is what the
    similarities are multiplied with (see `sharpness`). Of each query position's similarities only
    the `top` largest enter its softmax; None: all.

    With `pooling` "displacements", not in the paper, similarities are summed over all pairs of
    positions with the same displacement before the softmax, so that templates move as a whole: see
    `memory.displacements`. A position then holds `fold` x `fold` finer ones in its channels.
    """

    similarity: Similarity = "dot"
    scale: Scale = "sqrt"
    top: int | None = None
    pooling: Pooling = "positions"
    fold: int = 1

    def __post_init__(self) -> None:
        if self.pooling == "displacements" and (self.similarity != "dot" or self.top is not None):
            raise ValueError(
                "The pooling by displacements takes the dot product and all matches, got "
                f"similarity={self.similarity!r} and top={self.top}. Leave both as they are."
            )


EQUATION_5 = Matching()
"""Eq 5 as the paper's network reads."""
