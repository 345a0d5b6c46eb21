"""What a network sees of the summaries of objects (`memory.summary`). Not in the paper."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stremn.memory.choices import precise


class ObjectHint(nn.Sequential):
    """Map likeness of the object and of its rivals to what is added to the decoder's input.

    With fresh weights it adds nothing. `features` is how many features `shown_features` has.
    """

    HIDDEN = 32

    def __init__(self, features: int, outputs: int) -> None:
        last = nn.Conv2d(self.HIDDEN, outputs, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        super().__init__(nn.Conv2d(2, self.HIDDEN, 3, padding=1), nn.ReLU(), last)
        self.features = features

    @property
    def last(self) -> nn.Conv2d:
        """The convolution that makes what is added."""
        last = self[-1]
        assert isinstance(last, nn.Conv2d)
        return last


@torch.no_grad()
def shown_features(
    features: Float[Tensor, "b c16 h w"],
    key: Float[Tensor, "b h w ck"],
    skip8: Float[Tensor, "b c8 h8 w8"] | None,
) -> Float[Tensor, "b c h w"]:
    """Return the features of each position that summaries are of, the constant 1 last.

    Args:
        features: the query encoder's, at stride 16.
        key: k^Q.
        skip8: what the decoder adds at stride 8, if anything.
    """
    plain = precise(key).permute(0, 3, 1, 2)
    parts = [precise(features), plain]
    if skip8 is not None:
        parts.append(F.avg_pool2d(precise(skip8), 2))
    return torch.cat([*parts, torch.ones_like(plain[:, :1])], dim=1)
