"""A run twice gives the same bits; other numbers of threads change the rounding alone."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from moving_disc import disc, picture
from stremn.networks.pretrained import Pretrained, load_model
from stremn.segmentation.sessions import SegmentationSession

FRAMES = 3
ROUNDING = {"float32": 1e-4, "bfloat16": 0.05}
"""By how much a share may differ."""


@dataclass
class Run:
    """What a run gave: labels and probabilities of each frame, and its memory after the last."""

    labels: np.ndarray
    probabilities: np.ndarray
    memory: dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def small() -> Pretrained:
    return load_model("small")


@pytest.fixture
def _threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def run(small: Pretrained, precision: str, threads: int) -> Run:
    torch.set_num_threads(threads)
    session = SegmentationSession.from_pretrained(
        small, device="cpu", precision=precision, size=64, memory_slots=3
    )
    results = [
        session.step(picture(index), disc(index).astype(np.uint8) if index == 0 else None)
        for index in range(FRAMES)
    ]
    assert session.track is not None
    labels, probabilities = (
        np.stack([getattr(r, name) for r in results]) for name in ("labels", "layer_probabilities")
    )
    return Run(labels, probabilities, dict(session.track.state.tensors()))


@pytest.mark.usefixtures("_threads")
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_threads_change_rounding_alone(small: Pretrained, precision: str) -> None:
    one, two, again = (run(small, precision, threads) for threads in (1, 2, 2))
    np.testing.assert_array_equal(two.probabilities, again.probabilities)
    for name, x in two.memory.items():
        assert torch.equal(x, again.memory[name]), name
    assert two.labels.any()
    np.testing.assert_allclose(one.probabilities, two.probabilities, atol=ROUNDING[precision])
    assert (one.labels != two.labels).mean() <= 1e-3  # pixels on an outline
