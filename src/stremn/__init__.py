"""Video object segmentation and video prediction with a memory that never grows.

    from stremn import SegmentationSession

    session = SegmentationSession.from_pretrained("small")
    result = session.step(frame, mask)  # uint8 "height width 3", ids "height width"
    for frame in the_others:
        result = session.step(frame)  # result.labels: ids "height width"

Names are imported when they are first used, so that `import stremn` costs nothing.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from stremn.errors import StremnError
    from stremn.memory import MemoryState, Template
    from stremn.model import STReMN
    from stremn.policies import POLICIES, build_policy
    from stremn.prediction.sessions import PredictionSession
    from stremn.pretrained import Pretrained, load_model
    from stremn.reports import StepResult
    from stremn.segmentation import PRESETS, SegmentationConfig, build_model
    from stremn.sessions import SegmentationSession
    from stremn.training.adaptation import adapt

_HOMES = {
    "POLICIES": "stremn.policies",
    "PRESETS": "stremn.segmentation",
    "MemoryState": "stremn.memory",
    "PredictionSession": "stremn.prediction.sessions",
    "Pretrained": "stremn.pretrained",
    "STReMN": "stremn.model",
    "SegmentationConfig": "stremn.segmentation",
    "SegmentationSession": "stremn.sessions",
    "StepResult": "stremn.reports",
    "StremnError": "stremn.errors",
    "Template": "stremn.memory",
    "adapt": "stremn.training.adaptation",
    "build_model": "stremn.segmentation",
    "build_policy": "stremn.policies",
    "load_model": "stremn.pretrained",
}

__version__ = "0.1.0"
__all__ = [
    "POLICIES",
    "PRESETS",
    "MemoryState",
    "PredictionSession",
    "Pretrained",
    "STReMN",
    "SegmentationConfig",
    "SegmentationSession",
    "StepResult",
    "StremnError",
    "Template",
    "adapt",
    "build_model",
    "build_policy",
    "load_model",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stremn' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
