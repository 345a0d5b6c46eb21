"""Table 6 (Appendix B): a model with its fusion module, and the same weights without it."""

from __future__ import annotations

from stremn.errors import StremnError
from stremn.moved import earlier_arguments
from stremn.networks.defaults import PAPER
from stremn.networks.model import STReMN
from stremn.networks.pretrained import Pretrained
from stremn.study.tables import Row, Weights, weights_of

PAPER_SCORE = 76.7
"""J&F on DAVIS 2017 test-dev in percent, with and without."""

_FUSED = "+fusion"


@earlier_arguments(slots="memory_slots")
def fusion_rows(
    policy: str = PAPER.policy, memory_slots: int = PAPER.memory_slots
) -> tuple[Row, Row]:
    """Return the rows of Table 6: without fusion (the reference), and with it."""
    return (
        Row("without fusion", policy, memory_slots, PAPER_SCORE),
        Row("with fusion", policy + _FUSED, memory_slots, PAPER_SCORE),
    )


@earlier_arguments(resolution="size")
def fusion_weights(
    name: str,
    trained: Pretrained,
    size: int = PAPER.size,
    reach: float | None = PAPER.reach,
    every: int = PAPER.every,
    *,
    device: str = "auto",
) -> Weights:
    """Return the weights with a session factory for both rows.

    As in the paper, "without" removes the module and retrains nothing.

    Raises:
        StremnError: the model has no fusion module.
    """
    if trained.config.fusion is None:
        raise StremnError(
            f"The model {name!r} has no fusion module. Train one with "
            "recipes/small-fusion.toml, and give its weights."
        )
    plain = trained.with_fusion(None).model

    def choose(policy: str) -> tuple[STReMN, str]:
        model = trained.model if policy.endswith(_FUSED) else plain
        return model, policy.removesuffix(_FUSED)

    return weights_of(name, trained.model, size, reach, every=every, device=device, choose=choose)
