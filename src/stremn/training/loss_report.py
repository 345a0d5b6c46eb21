"""Result of a task's loss for the training loop."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor

from stremn.errors import StremnError


@dataclass(frozen=True)
class LossReport:
    """Result of a clip loss: the scalar to minimize, and numbers to log."""

    loss: Tensor
    scalars: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.loss.ndim != 0:
            raise StremnError(
                f"A clip loss must be a scalar, got shape {tuple(self.loss.shape)}: take its mean."
            )
