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

from stremn import moved

if TYPE_CHECKING:
    from stremn.errors import StremnError
    from stremn.memory.policies import POLICIES, build_policy
    from stremn.memory.state import MemoryState, Template
    from stremn.networks.model import STReMN
    from stremn.networks.presets import PRESETS, SegmentationConfig, build_model
    from stremn.networks.pretrained import Pretrained, load_model
    from stremn.prediction.sessions import PredictionSession
    from stremn.prompting.masks import mask_from
    from stremn.segmentation.reports import StepResult
    from stremn.segmentation.sessions import SegmentationSession
    from stremn.training.segmentation.adaptation import adapt

_HOMES = {
    "POLICIES": "stremn.memory.policies",
    "PRESETS": "stremn.networks.presets",
    "MemoryState": "stremn.memory.state",
    "PredictionSession": "stremn.prediction.sessions",
    "Pretrained": "stremn.networks.pretrained",
    "STReMN": "stremn.networks.model",
    "SegmentationConfig": "stremn.networks.presets",
    "SegmentationSession": "stremn.segmentation.sessions",
    "StepResult": "stremn.segmentation.reports",
    "StremnError": "stremn.errors",
    "Template": "stremn.memory.state",
    "adapt": "stremn.training.segmentation.adaptation",
    "build_model": "stremn.networks.presets",
    "build_policy": "stremn.memory.policies",
    "load_model": "stremn.networks.pretrained",
    "mask_from": "stremn.prompting.masks",
}

moved.install()

__version__ = "0.2.0"
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
    "mask_from",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'stremn' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
