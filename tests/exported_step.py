"""An exported step beside PyTorch."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stremn.networks.model import STReMN
from stremn.segmentation.export import OnnxSession
from stremn.segmentation.sessions import SegmentationSession


def largest_difference(
    model: STReMN, path: Path, clip: Sequence[tuple[np.ndarray, np.ndarray | None]]
) -> float:
    """Run an exported ONNX step and PyTorch beside each other over (frame, mask or None) pairs.

    Returns the largest difference of any probability at any frame, each going on from its own
    memory.
    """
    exported = OnnxSession(path)
    facts = exported.facts
    session = SegmentationSession(
        model,
        device="cpu",
        precision="float32",
        memory_slots=facts["memory_slots"],
        policy=facts["policy"],
        size=min(facts["height"], facts["width"]),
        reach=None,
    )
    worst = 0.0
    for frame, mask in clip:
        exported.step(frame, mask)
        expected = session.step(frame, mask).layer_probabilities
        worst = max(worst, float(np.abs(exported.probabilities - expected).max()))
    return worst
