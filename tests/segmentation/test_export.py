"""The exported step follows PyTorch frame by frame, and refuses what it cannot hold."""

import warnings
from pathlib import Path

import jaxtyping
import numpy as np
import onnxruntime
import pytest

from exported_step import largest_difference
from stremn.benchmarks.workload import made_frame, made_labels
from stremn.errors import StremnError
from stremn.networks.model import STReMN
from stremn.segmentation.export import (
    EXPORTABLE,
    FRAME,
    MEMORY,
    OnnxSession,
    export_step,
    step_shapes,
)
from stremn.segmentation.sessions import SegmentationSession
from tiny_model import tiny_model

SIZE = {"height": 64, "width": 96}


def exported_model(tmp_path_factory: pytest.TempPathFactory, model: STReMN) -> Path:
    path = tmp_path_factory.mktemp("export") / "step.onnx"
    jaxtyping.config.update("jaxtyping_disable", True)  # the exporter traces with its own tensors
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the exporter's own
            return export_step(model, path, **SIZE, objects=2, memory_slots=3)
    finally:
        jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return exported_model(tmp_path_factory, tiny_model())


def clip(frames: int):  # type: ignore[no-untyped-def]
    masks = [made_labels(64, 96, 2), *[None] * (frames - 1)]
    return [(made_frame(64, 96, 10 * i), mask) for i, mask in enumerate(masks)]


def test_onnx_follows_pytorch_over_a_clip(exported: Path) -> None:
    assert largest_difference(tiny_model(), exported, clip(9)) < 1e-4


def test_onnx_follows_pytorch_with_summaries(tmp_path_factory: pytest.TempPathFactory) -> None:
    model = tiny_model(summary=True)
    path = exported_model(tmp_path_factory, model)
    assert largest_difference(model, path, clip(9)) < 1e-3
    inputs, outputs = step_shapes(model, **SIZE, objects=2, memory_slots=3)
    assert tuple(inputs) == (*FRAME, *MEMORY)
    assert inputs["summary"] == outputs["new_summary"] == "float32 2 2 31 32"


def test_the_shapes_told_are_those_of_the_graph(exported: Path) -> None:
    graph = onnxruntime.InferenceSession(exported, providers=["CPUExecutionProvider"])
    inputs, outputs = step_shapes(tiny_model(), **SIZE, objects=2, memory_slots=3)
    memory = MEMORY[:-1]  # this network has no summaries
    assert tuple(inputs) == (*FRAME, *memory)
    assert tuple(outputs) == ("probabilities", *(f"new_{name}" for name in memory))
    names = {"float32": "tensor(float)", "int64": "tensor(int64)", "bool": "tensor(bool)"}
    for told, found in ((inputs, graph.get_inputs()), (outputs, graph.get_outputs())):
        for tensor in found:
            kind, *shape = told[tensor.name].split()
            assert (names[kind], [int(side) for side in shape]) == (tensor.type, tensor.shape)


def test_the_memory_stays_one_size_and_pins_the_given_frame(exported: Path) -> None:
    session = OnnxSession(exported)
    sizes = set()
    for frame, mask in clip(7):
        labels = session.step(frame, mask)
        sizes.add(session.memory_bytes)
        assert labels.shape == (64, 96)
        assert labels.dtype == np.uint8
    assert len(sizes) == 1
    assert session._memory["written_at"][:, 0].tolist() == [0, 0]
    assert sorted(session._memory["written_at"][0])[-1] == 6


@pytest.mark.usefixtures("unchecked")  # a frame of a wrong type
def test_a_session_says_what_it_was_exported_for(exported: Path) -> None:
    session = OnnxSession(exported)
    assert session.facts == {**SIZE, "objects": 2, "memory_slots": 3, "policy": "learned"}
    with pytest.warns(DeprecationWarning, match="'shares' of OnnxSession is called"):
        assert session.shares is session.probabilities
    with pytest.raises(StremnError, match="exported for frames and masks of 96x64"):
        session.step(made_frame(32, 32), made_labels(32, 32, 1))
    with pytest.raises(StremnError, match=r"shape \(64, 96, 3\) and a mask of shape \(32, 32\)"):
        session.step(made_frame(64, 96), made_labels(32, 32, 1))
    with pytest.raises(StremnError, match=r"RGB as uint8, 0 to 255, got float32\. Multiply"):
        session.step((made_frame(64, 96) / 255).astype(np.float32), made_labels(64, 96, 2))
    with pytest.raises(StremnError, match="first frame needs a mask"):
        session.step(made_frame(64, 96))


def test_given_masks_leave_the_latest_frame_a_slot_as_in_a_session(exported: Path) -> None:
    session = OnnxSession(exported)
    plain = SegmentationSession(
        tiny_model(),
        device="cpu",
        precision="float32",
        memory_slots=3,
        policy="learned",
        size=64,
        reach=None,
    )
    for t in range(7):
        frame = made_frame(64, 96, 10 * t)
        mask = made_labels(64, 96, 2, 10 * t) if t < 3 else None
        session.step(frame, mask)
        held = plain.step(frame, mask).memory.objects
    found = session._memory["written_at"].tolist()
    assert [sorted(row) for row in found] == [sorted(o.frames) for o in held]  # type: ignore[type-var]
    assert all(6 in row for row in found)


@pytest.mark.parametrize("mask", [np.full((64, 96), 255), np.zeros((64, 96)), np.full((64, 96), 3)])
def test_ids_that_a_step_was_not_exported_for_are_refused(exported: Path, mask: np.ndarray) -> None:
    session = OnnxSession(exported)
    with pytest.raises(StremnError, match=r"ids 1 to 2; the mask holds \d+\. If it holds 0 and"):
        session.step(made_frame(64, 96), mask.astype(np.uint8))


@pytest.mark.usefixtures("unchecked")
def test_a_torch_program_is_written_too(tmp_path: Path) -> None:
    path = export_step(tiny_model(), tmp_path / "step.pt2", **SIZE)
    assert path.stat().st_size > 0


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("step.bin", {}, "ending in .onnx or .pt2, got 'step.bin'"),
        ("step.onnx", {"height": 65}, "multiples of 16, got 96x65. Use 96x64"),
        ("step.onnx", {"objects": 0}, "at least one object and two slots, got 0 and 6"),
        ("step.onnx", {"memory_slots": 1}, "at least one object and two slots, got 1 and 1"),
        ("step.onnx", {"policy": "append"}, "'append' cannot be exported. It makes the memory"),
        ("step.onnx", {"policy": "ucb"}, f"Choose one of: {', '.join(EXPORTABLE)}"),
    ],
)
def test_what_cannot_be_exported_is_refused_before_any_work(
    tmp_path: Path, name: str, options: dict[str, object], message: str
) -> None:
    with pytest.raises(StremnError, match=message):
        export_step(tiny_model(), tmp_path / name, **{**SIZE, **options})  # type: ignore[arg-type]
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_exported_step_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match="There is no file"):
        OnnxSession(tmp_path / "none.onnx")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"no graph")
    with pytest.raises(StremnError, match="cannot be run as an ONNX graph"):
        OnnxSession(bad)
