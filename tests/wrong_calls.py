"""Calls that a session refuses, and what it must remember unchanged afterwards."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from PIL import Image

from stremn.segmentation.sessions import SegmentationSession


def frame(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 255, (64, 64, 3), dtype=np.uint8)


def mask(*ids: int) -> np.ndarray:
    labels = np.zeros((64, 64), np.uint16 if max(ids, default=0) > 255 else np.uint8)
    for row, name in enumerate(ids):
        labels[4 + 20 * row : 20 + 20 * row, 8:30] = name
    return labels


def remembered(session: SegmentationSession) -> dict[str, Any]:
    """All that a session remembers, copied."""
    state = None if session.track is None else session.track.state
    tensors = {} if state is None else {n: x.clone() for n, x in state.tensors().items()}
    where, latest = session._layers, session._latest
    return tensors | {
        "frame": session.frame,
        "ids": session.ids,
        "filled": None if state is None else state.filled,
        "size": session._frame_size,
        "where": None if where is None else where.copy(),
        "shares": None if latest is None else latest[1].clone(),
        "memory": session.memory,
    }


def assert_same(before: dict[str, Any], after: dict[str, Any]) -> None:
    assert before.keys() == after.keys()
    for name, value in before.items():
        if isinstance(value, torch.Tensor):
            torch.testing.assert_close(after[name], value, rtol=0, atol=0, msg=name)
        elif isinstance(value, np.ndarray):
            np.testing.assert_array_equal(after[name], value, err_msg=name)
        else:
            assert after[name] == value, name


NO_NUMBER = [
    np.array([1]),
    np.array([3, 5]),
    np.array(3.0),
    torch.tensor([3]),
    3.0,
    True,
    "3",
    None,
    [3],
    object(),
]
WRONG: dict[str, list[Callable[[SegmentationSession], object]]] = {
    "remove": [lambda s, x=x: s.remove_object(x) for x in [*NO_NUMBER, 4, 0, -1, 2**70]],
    "pin": [lambda s, x=x: s.pin(x) for x in [*NO_NUMBER, 99, -1, 2**70]],
    "pin one": [lambda s, x=x: s.pin(0, x) for x in [*NO_NUMBER[:-3], [3], 4, 2**70]],
    "pinned": [lambda s: s.pin(0, pinned="no"), lambda s: s.pin(0, pinned=np.ones(2))],  # type: ignore[arg-type]
    "add": [
        lambda s, x=x: s.add_object(x)
        for x in [
            None,
            3,
            [[1]],
            {"a": 1},
            np.zeros((64, 64), np.uint8),
            np.ones((32, 64), np.uint8),
            np.ones((64, 64)),
            np.full((64, 64), 70_000),
            np.full((64, 64), -1),
            np.full((64, 64), 1, object),
            torch.ones(64, 64),
            torch.ones(64, 64, dtype=torch.complex64),
            "no-such-file.png",
        ]
    ],
    "step": [
        lambda s, x=x: s.step(x)
        for x in [
            None,
            "frame.png",
            [[[0, 0, 0]]],
            np.zeros((64, 64, 3)),
            np.zeros((32, 64, 3), np.uint8),
            np.zeros((64, 64), np.uint8),
            np.zeros((0, 64, 3), np.uint8),
            torch.full((3, 64, 64), float("nan")),
            torch.full((3, 64, 64), float("inf")),
            torch.full((3, 64, 64), 200.0),
            torch.full((3, 64, 64), -1.0),
            torch.full((3, 64, 64), 2, dtype=torch.int64),
            torch.zeros(3, 64, 64, device="meta"),
            torch.zeros(3, 64, 64).to_sparse(),
            Image.new("L", (10, 10)),
        ]
    ],
    "step with mask": [
        lambda s: s.step(frame(3), mask()),
        lambda s: s.step(frame(3), 7),  # type: ignore[arg-type]
        lambda s: s.step(frame(3), np.ones((10, 10), np.uint8)),
    ],
}
