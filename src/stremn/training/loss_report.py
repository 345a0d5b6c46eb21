"""What the loss of any task hands to the training loop."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from stremn.errors import StremnError


@dataclass(frozen=True)
class LossReport:
    """What a clip loss returns: the scalar to minimize, and numbers to log beside it."""

    loss: Tensor
    scalars: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.loss.ndim != 0:
            raise StremnError(
                f"A clip loss must be a scalar, got shape {tuple(self.loss.shape)}: take its mean."
            )
