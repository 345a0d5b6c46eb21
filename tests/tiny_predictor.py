"""A predictor that is built at once, and clips for it."""

import torch

from stremn.prediction.baselines import RecurrentConfig, build_baseline
from stremn.prediction.building import build_predictor
from stremn.prediction.config import PredictionConfig

TINY = PredictionConfig(
    size=16, widths=(8,) * 6, strides=(2, 1, 2, 1, 1, 1), key=6, value=8, update_key=6
)


def tiny(seed=0, **changes):
    torch.manual_seed(seed)
    return build_predictor(TINY.model_copy(update=changes)).eval()


def tiny_of(kind):
    """A small predictor of a kind: "stremn", "convlstm" or "predrnn"."""
    torch.manual_seed(0)
    if kind == "stremn":
        return tiny()
    return build_baseline(RecurrentConfig(kind=kind, hidden=5, kernel=3, layers=2))


def clip(b=2, t=12, c=1, size=16, seed=0):
    return torch.rand(b, t, c, size, size, generator=torch.Generator().manual_seed(seed))
