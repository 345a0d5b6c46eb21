"""Saved state is checked before it is believed: a changed byte or an impossible fact is told."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stremn.core.checkpoints import Checkpoint, read_checkpoint, read_tensors, write_checkpoint
from stremn.core.checkpoints import write_tensors as write
from stremn.errors import StremnError
from stremn.networks.model import STReMN
from stremn.prediction.sessions import PredictionSession
from stremn.prediction.weights import load_predictor, save_predictor
from stremn.segmentation.sessions import SegmentationSession
from tiny_model import tiny_model
from tiny_predictor import tiny


def segmented(model: STReMN) -> SegmentationSession:
    rng = np.random.default_rng(0)
    options = {"precision": "float32", "size": 64, "memory_slots": 3, "reach": 0.5}
    session = SegmentationSession(model, device="cpu", policy="learned", **options)
    mask = np.zeros((64, 64), np.uint8)
    mask[4:30, 4:30], mask[34:60, 34:60] = 3, 5
    session.step(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8), mask)
    session.step(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8))
    return session


def observed() -> PredictionSession:
    rng = np.random.default_rng(0)
    session = PredictionSession(tiny(carried=8), device="cpu")
    for _ in range(6):
        session.observe(rng.integers(0, 255, (16, 16), dtype=np.uint8))
    return session


@pytest.fixture(params=["session", "prediction session", "predictor", "checkpoint"])
def kind(request: pytest.FixtureRequest, model: STReMN, tmp_path: Path):  # type: ignore[no-untyped-def]
    """A file of each kind, and what reads it."""
    path = tmp_path / "state.safetensors"
    if request.param == "session":
        segmented(model).save(path)
        return path, lambda file: SegmentationSession.load(file, model, device="cpu")
    if request.param == "prediction session":
        observed().save(path)
        return path, lambda file: PredictionSession.load(file, tiny(carried=8), device="cpu")
    if request.param == "predictor":
        save_predictor(tiny(), path)
        return path, load_predictor
    write_checkpoint(path, Checkpoint({"x": torch.arange(40.0)}, {"step": 3, "name": "a"}))
    return path, read_checkpoint


def test_no_changed_byte_is_taken(kind: tuple[Path, Callable[[Path], object]]) -> None:
    path, read = kind
    content = path.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    rng = np.random.default_rng(1)
    places = [*range(8), *rng.integers(8, header, 60), *rng.integers(header, len(content), 12)]
    for place in places:
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        try:
            read(path)
        except StremnError:
            continue
        # Only the name of the checksum itself may be lost without any loss of content.
        assert b"stremn_checksum" not in bytes(damaged), place
    for kept in (0, 4, 8, header // 2, header, len(content) - 1):
        path.write_bytes(content[:kept])
        with pytest.raises(StremnError):
            read(path)


FACTS: dict[str, dict[str, Any]] = {
    "frame": {"frame": -1},
    "frame before what is held": {"frame": 0},
    "frame without end": {"frame": 2**63},
    "ids that repeat": {"ids": [3, 3]},
    "an id too many": {"ids": [3, 5, 7]},
    "an id too few": {"ids": [3]},
    "no id": {"ids": []},
    "id 0": {"ids": [0, 5]},
    "frame size": {"frame_size": [64, 640]},
    "no frame size": {"frame_size": None},
    "frame size of nothing": {"frame_size": [0, 64]},
    "filled": {"filled": 1},
    "overfilled": {"filled": 9},
    "a fact more": {"more": 1},
    "weights": {"weights": "many"},
    "settings": {"settings": {}},
}


def changed(path: Path, key: str, facts: dict[str, Any], tensors: dict[str, Any]) -> None:
    """Rewrite a saved state with a right checksum."""
    header, found = read_tensors(path, "state")
    content = json.loads(header[key]) | facts
    for name, change in tensors.items():
        found[name] = change(found[name].clone())
    write(path, found, {key: json.dumps(content)})


@pytest.mark.parametrize("name", FACTS)
def test_facts_that_cannot_be_are_told(model: STReMN, tmp_path: Path, name: str) -> None:
    path = tmp_path / "state.safetensors"
    segmented(model).save(path)
    changed(path, "stremn_session", FACTS[name], {})
    with pytest.raises(StremnError, match=r"state\.safetensors"):
        SegmentationSession.load(path, model, device="cpu")


SETTINGS = [
    {"memory_slots": 4}, {"memory_slots": 0}, {"memory_slots": 2**70}, {"size": 128}, {"size": 1},
    {"policy": "fifo"}, {"policy": 3}, {"seed": -1}, {"reach": -1.0}, {"reach": "far"},
    {"precision": "int8"}, {"precision": "bfloat16"}, {"every": 0}, {"device": "cpu"},
]  # fmt: skip


@pytest.mark.parametrize("change", SETTINGS, ids=str)
def test_settings_that_cannot_be_are_told(
    model: STReMN, tmp_path: Path, change: dict[str, Any]
) -> None:
    path = tmp_path / "state.safetensors"
    segmented(model).save(path)
    header, _ = read_tensors(path, "state")
    settings = json.loads(header["stremn_session"])["settings"] | change
    changed(path, "stremn_session", {"settings": settings}, {})
    with pytest.raises(StremnError):
        SegmentationSession.load(path, model, device="cpu")


def put(*index: int, value: Any) -> Callable[[torch.Tensor], torch.Tensor]:
    def change(x: torch.Tensor) -> torch.Tensor:
        x[index] = value
        return x

    return change


TENSORS: dict[str, dict[str, Any]] = {
    "frame of the future": {"written_at": put(0, 0, value=99)},
    "frame before the first": {"written_at": put(0, 0, value=-2)},
    "one frame twice": {"written_at": put(0, 1, value=0)},
    "template behind the filled": {"written_at": put(0, 2, value=1)},
    "empty and pinned": {"pinned": put(0, 2, value=True)},
    "fewer seen than held": {"seen": put(0, value=0)},
    "evidence": {"evidence": put(0, 0, value=2.0)},
    "not finite": {"keys": put(0, 0, value=float("nan"))},
    "infinite": {"tally": put(0, 0, value=float("inf"))},
    "type": {"keys": lambda x: x.double()},
    "types": {name: lambda x: x.half() for name in ("keys", "values", "update_keys")},
    "channels": {"values": lambda x: x[..., :-1].contiguous()},
    "positions": {"keys": lambda x: x[:, :, :-1].contiguous()},
    "slots": {"tally": lambda x: x[:, :-1].contiguous()},
    "objects": {"seen": lambda x: x[:-1].contiguous()},
    "flag": {"pinned": lambda x: x.to(torch.uint8)},
    "label": {"where": put(0, 0, value=3)},
    "labels": {"where": lambda x: x[:-1].contiguous()},
}


@pytest.mark.parametrize("name", TENSORS)
def test_memories_that_cannot_be_are_told(model: STReMN, tmp_path: Path, name: str) -> None:
    path = tmp_path / "state.safetensors"
    segmented(model).save(path)
    changed(path, "stremn_session", {}, TENSORS[name])
    with pytest.raises(StremnError, match=r"state\.safetensors is damaged"):
        SegmentationSession.load(path, model, device="cpu")


SUMMARIES: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "features": lambda x: x[:, :, :-1].contiguous(),
    "fewer features": lambda x: x[:, :, :-1, :-1].contiguous(),
    "objects": lambda x: x[:-1].contiguous(),
    "sums": lambda x: x[:, :1].contiguous(),
    "type": lambda x: x.half(),
    "not finite": put(0, 0, 0, 0, value=float("nan")),
}


@pytest.mark.parametrize("name", SUMMARIES)
def test_summaries_that_cannot_be_are_told(tmp_path: Path, name: str) -> None:
    path, model = tmp_path / "state.safetensors", tiny_model(summary=True)
    segmented(model).save(path)
    changed(path, "stremn_session", {}, {"summary": SUMMARIES[name]})
    with pytest.raises(StremnError, match=r"state\.safetensors is damaged"):
        SegmentationSession.load(path, model, device="cpu")


@pytest.mark.parametrize(
    ("facts", "tensors"),
    [
        ({"frames_seen": 2}, {}),
        ({"frames_seen": -1}, {}),
        ({"frames_seen": 0}, {}),
        ({"filled": 99}, {}),
        ({"shape": None}, {}),
        ({"shape": [0, 4]}, {}),
        ({"format": 2}, {}),
        ({"config": {}}, {}),
        ({}, {"window.0": lambda x: x * 0 + 2}),
        ({}, {"window.0": lambda x: x[:, :-1].contiguous()}),
        ({}, {"carried.0": lambda x: x[:, :-1].contiguous()}),
        ({}, {"memory.keys": lambda x: x[..., :-1].contiguous()}),
        ({}, {"memory.written_at": put(0, 0, value=50)}),
    ],
)
def test_prediction_sessions_that_cannot_be_are_told(
    tmp_path: Path, facts: dict[str, Any], tensors: dict[str, Any]
) -> None:
    path = tmp_path / "state.safetensors"
    observed().save(path)
    changed(path, "stremn_prediction_session", facts, tensors)
    with pytest.raises(StremnError):
        PredictionSession.load(path, tiny(carried=8), device="cpu")


def test_windows_of_ten_frames_and_more_keep_their_order(tmp_path: Path) -> None:
    model = tiny(stack=12)
    session = PredictionSession(model, device="cpu")
    for t in range(14):
        session.observe(np.full((16, 16), 10 * t, np.uint8))
    session.save(tmp_path / "state.safetensors")
    again = PredictionSession.load(tmp_path / "state.safetensors", model, device="cpu")
    for one, other in zip(session._window, again._window, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)


@pytest.mark.parametrize(
    "change", [{"key": 10**6}, {"widths": [10**5] * 6}, {"widths": [16_384] * 6}, {"size": 2**20}]
)
def test_huge_configurations_are_refused_before_memory_is_taken(
    tmp_path: Path, change: dict[str, Any]
) -> None:
    """Built, the models would take from a gigabyte to petabytes."""
    path = tmp_path / "huge.safetensors"
    save_predictor(tiny(), path)
    header, tensors = read_tensors(path, "weights")
    header["config"] = json.dumps(json.loads(header["config"]) | change)
    write(path, tensors, header)
    with pytest.raises(StremnError, match=r"huge\.safetensors"):
        load_predictor(path)


def test_weights_with_a_number_that_is_none_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "nan.safetensors"
    model = tiny()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = torch.nan
    save_predictor(model, path)
    with pytest.raises(StremnError, match="are not finite"):
        load_predictor(path)
