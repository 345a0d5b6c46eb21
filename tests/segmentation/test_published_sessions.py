"""STM and STCN, tiny, through all that a session does with any model."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from exported_step import largest_difference
from stremn.cli.app import app
from stremn.memory.fusion import FusionConfig
from stremn.memory.policies import POLICIES, Oldest, PlainEvidence
from stremn.memory.similarity import similarity
from stremn.memory.state import Template
from stremn.networks.defaults import SessionDefaults
from stremn.networks.model import STReMN
from stremn.networks.presets import PRESETS, SegmentationConfig, build_model
from stremn.networks.pretrained import Pretrained
from stremn.networks.windows import Window
from stremn.segmentation.export import export_step
from stremn.segmentation.multiscale import MultiScaleSession
from stremn.segmentation.sessions import SegmentationSession
from stremn.training.segmentation.adaptation import adapt
from tiny_model import square_clips, tiny_backbone
from tiny_vos import square_labels, write_frame, write_labels

FAMILIES = ("stm", "stcn")


def tiny_published(family: str, **changes) -> Pretrained:  # type: ignore[no-untyped-def]
    """STM or STCN with tiny backbones and random weights."""
    narrow = {"key": 6, "value": 48, "decoder": (8, 8, 8)}
    config = SegmentationConfig(**{**PRESETS[family].model_dump(), **narrow, **changes})
    with torch.random.fork_rng():
        torch.manual_seed(3)
        model = build_model(config, tiny_backbone(), tiny_backbone()).eval()
        for block in model.modules():  # residual branches start at zero: let them speak
            if hasattr(block, "conv2") and not block.conv2.weight.any():
                torch.nn.init.kaiming_normal_(block.conv2.weight)
    return Pretrained(model, config)


@pytest.fixture(params=FAMILIES)
def published(request: pytest.FixtureRequest) -> Pretrained:
    return tiny_published(request.param)


def clip(frames: int = 9) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Frames and label maps of two squares, 64 x 64."""
    batch = square_clips([[0, 0]], frames=frames)
    pictures = [np.ascontiguousarray(x.numpy().transpose(1, 2, 0)) for x in batch.frames[0]]
    return pictures, [x.numpy() for x in batch.labels[0]]


def open_session(model: Pretrained, **options) -> SegmentationSession:  # type: ignore[no-untyped-def]
    settings = {"device": "cpu", "precision": "float32", "size": 64, "memory_slots": 3}
    return SegmentationSession.from_pretrained(model, **(settings | options))


def held(session: SegmentationSession) -> list[list[int]]:
    """Frames in the slots of each object, in order."""
    assert session.track is not None
    return [sorted(t for t in row if t >= 0) for row in session.track.state.written_at.tolist()]


# ------------------------------------------------------------------------------- what is usual


def test_sessions_open_as_the_authors_run_their_models(published: Pretrained) -> None:
    assert published.config.usual == SessionDefaults(size=480, reach=None, every=5)
    session = SegmentationSession.from_pretrained(published, device="cpu")
    assert (session.size, session.reach, session.every) == (480, None, 5)
    assert isinstance(session.policy, PlainEvidence)


def test_every_nth_frame_is_memorized_and_corrections_at_once(published: Pretrained) -> None:
    frames, labels = clip()
    session = open_session(published, every=4, memory_slots=6)
    session.step(frames[0], labels[0])
    for frame in frames[1:6]:
        result = session.step(frame)
    assert held(session) == [[0, 4], [0, 4]]
    assert all(o.replaced is None for o in result.memory.objects)  # frame 5 was not memorized
    session.step(frames[6], np.where(labels[6] == 2, 2, 0).astype(np.uint8))
    assert held(session) == [[0, 4], [0, 4, 6]]
    session.add_object(np.where(labels[6] == 1, 3, 0).astype(np.uint8))
    assert held(session) == [[0, 4], [0, 4, 6], [6]]


# ------------------------------------------------------------------------- like any other model


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_rule_keeps_k_templates(published: Pretrained, name: str) -> None:
    frames, labels = clip()
    session = open_session(published, policy=name, every=1)
    session.step(frames[0], labels[0])
    for frame in frames[1:]:
        result = session.step(frame)
    assert np.isfinite(result.layer_probabilities).all()
    if name != "append":
        assert all(len(row) <= 3 and row[0] == 0 for row in held(session))
    if name in ("oldest", "newest"):
        assert held(session)[0] == ([0, 7, 8] if name == "oldest" else [0, 1, 8])


def test_the_memory_holds_no_update_keys_and_eq_1_compares_keys(published: Pretrained) -> None:
    frames, labels = clip(3)
    session = open_session(published, every=1)
    for t, frame in enumerate(frames):
        session.step(frame, labels[0] if t == 0 else None)
    assert session.track is not None
    state = session.track.state
    assert state.update_keys.numel() == 0
    new = Template(state.keys[:, 0], state.values[:, 0], state.update_keys[:, 0],
                   state.evidence[:, 0], 9)  # fmt: skip
    rule = session.model.policies["learned"]
    found = rule(state, new, torch.ones(2, 3, dtype=torch.bool)).scores
    torch.testing.assert_close(found, similarity(new.key, state.keys))
    torch.testing.assert_close(found[:, 0], torch.ones(2))  # the same template


def test_a_saved_session_goes_on_bit_for_bit(published: Pretrained, tmp_path: Path) -> None:
    frames, labels = clip()
    session = open_session(published, every=2, policy="evidence")
    session.step(frames[0], labels[0])
    session.step(frames[1])
    session.pin(0)
    session.save(tmp_path / "state.safetensors")
    other = SegmentationSession.load(tmp_path / "state.safetensors", published, device="cpu")
    assert other.every == 2
    for frame in frames[2:]:
        assert np.array_equal(
            session.step(frame).layer_probabilities, other.step(frame).layer_probabilities
        )
    assert held(session) == held(other)


def test_bytes_stay_flat_and_objects_come_and_go(published: Pretrained) -> None:
    frames, labels = clip()
    session = open_session(published, every=1)
    session.step(frames[0], labels[0])
    before = session.memory_bytes
    for frame in frames[1:]:
        session.step(frame)
    assert session.memory_bytes == before
    session.remove_object(1)
    assert session.memory_bytes == before // 2
    assert session.step(frames[0]).ids == (2,)


def test_bfloat16_several_scales_and_a_reach_work(published: Pretrained) -> None:
    frames, labels = clip(4)
    coarse = open_session(published, precision="bfloat16", reach=0.5)
    several = MultiScaleSession(lambda size: open_session(published, size=size), size=64)
    for t, frame in enumerate(frames):
        mask = labels[0] if t == 0 else None
        assert np.isfinite(coarse.step(frame, mask).layer_probabilities).all()
        assert several.step(frame, mask).probabilities.shape == (2, 64, 64)


def test_windows_are_memorized_only_where_the_encoder_is_local(published: Pretrained) -> None:
    """STCN's attention weighs channels by the whole frame: a window would change it."""
    model = published.model
    query = model.encode_query(torch.rand(1, 3, 64, 64))
    each = query.take(torch.zeros(2, dtype=torch.int64))
    masks = torch.rand(2, 2, 64, 64) / 2
    windows = [Window(0, 2, 0, 2), Window(2, 4, 2, 4)]

    def memorized(windows: list[Window] | None) -> torch.Tensor:
        state = model.empty_state(2, 1, (64, 64))
        with torch.no_grad():
            state, _ = model.memorize(state, each, masks, frame=0, policy=Oldest(), windows=windows)
        return state.values

    whole = torch.equal(memorized(windows), memorized(None))
    assert whole == (published.config.family == "stcn")


def test_adapting_and_fusing_work(published: Pretrained) -> None:
    frames, labels = clip(2)
    large = [np.kron(x, np.ones((2, 2, 1), np.uint8)) for x in frames]
    mask = np.kron(labels[0], np.ones((2, 2), np.uint8))
    adapted = adapt(published, large[0], mask, steps=1, device="cpu")
    assert adapted.config == published.config
    changed = adapted.model.state_dict()["decoder.logit.weight"]
    assert not torch.equal(changed, published.model.state_dict()["decoder.logit.weight"])
    fused = published.with_fusion(FusionConfig(hidden=4))
    session = open_session(fused, every=1, memory_slots=2)
    for t, frame in enumerate([*large, *large]):
        result = session.step(frame, mask if t == 0 else None)
    assert np.isfinite(result.layer_probabilities).all()


@pytest.mark.filterwarnings("ignore")  # the exporter's own
@pytest.mark.usefixtures("unchecked")  # it traces with its own tensors
def test_the_step_is_exported(published: Pretrained, tmp_path: Path) -> None:
    path = export_step(
        published.model, tmp_path / "step.onnx", height=64, width=64, objects=2, memory_slots=3,
        policy="evidence",
    )  # fmt: skip
    frames, labels = clip(6)
    pairs = [(frame, labels[0] if t == 0 else None) for t, frame in enumerate(frames)]
    assert largest_difference(published.model, path, pairs) < 1e-4


def test_gradients_reach_every_weight(published: Pretrained) -> None:
    """Through the memory: what is written in one frame is read in the next."""
    model = published.model.train()
    query = model.encode_query(torch.rand(2, 3, 64, 64)[:1])
    state = model.empty_state(1, 2, (64, 64))
    masks = torch.rand(1, 2, 64, 64)
    state, _ = model.memorize(state, query, masks, frame=0, policy=Oldest())
    other = model.encode_query(torch.rand(1, 3, 64, 64))
    state, _ = model.memorize(state, other, masks, frame=1, policy=Oldest())
    model.recall(state, other).square().sum().backward()
    unreached = [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert unreached == []


# ----------------------------------------------------------------------------- the evidence rule


def test_plain_evidence_replaces_what_teaches_least(published: Pretrained) -> None:
    model: STReMN = published.model
    state = model.empty_state(1, 4, (64, 64))
    torch.manual_seed(1)
    maps = torch.randn(1, 4, 4, 4, 6)
    state = replace(
        state,
        keys=maps,
        written_at=torch.tensor([[0, 10, 20, 30]]),
        evidence=torch.tensor([[[0.2, 0.9]] * 4]),
        pinned=torch.tensor([[True, False, False, False]]),
        filled=4,
    )
    new = Template(torch.randn(1, 4, 4, 6), state.values[:, 0], state.update_keys[:, 0],
                   state.evidence[:, 0], 40)  # fmt: skip
    free = ~state.pinned

    def replaced(**changes: torch.Tensor) -> int:
        choice = PlainEvidence()(replace(state, **changes), new, free)
        assert choice.replace.sum() == 1
        return int(choice.replace.argmax())

    bare = state.evidence.clone()
    bare[0, 2, 0] = 0.0  # the object was not there
    assert replaced(evidence=bare) == 2
    unsure = state.evidence.clone()
    unsure[0, 3, 1] = 0.1
    same = maps[:, :1].expand_as(maps)
    assert replaced(keys=same, evidence=unsure) == 3
    close = torch.tensor([[0, 1, 2, 30]])
    assert replaced(keys=same, written_at=close) == 1
    alike = maps.clone()
    alike[:, 3] = new.key
    assert replaced(keys=alike) == 3


# ---------------------------------------------------------------------------- the command line


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for t in range(4):
        write_frame(tmp_path / "frames" / f"{t:05d}.png", t, (64, 64))
    write_labels(tmp_path / "first.png", square_labels(0, [1, 2], (64, 64)))
    return tmp_path


def test_a_converted_file_segments_from_the_command_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With tiny backbones in the place of ResNets: they are built from the file's configuration."""
    from stremn.networks import presets

    monkeypatch.setattr(presets, "build_backbone", lambda name: tiny_backbone())
    for family in FAMILIES:
        tiny_published(family).save(folder / f"{family}.safetensors")
        out = folder / family
        arguments = [
            "segment", str(folder / "frames"), "--mask", str(folder / "first.png"),
            "--model", str(folder / f"{family}.safetensors"), "-o", str(out), "--every", "2",
            "--device", "cpu",
        ]  # fmt: skip
        for part in (["--limit", "2"], ["--resume"]):
            done = CliRunner().invoke(app, arguments + part, catch_exceptions=False)
            assert done.exit_code == 0, done.output
        last = json.loads((out / "memory.json").read_text())[-1]
        assert [t for t in last["objects"]["1"]["slots"] if t is not None] == [0, 2]
        assert set(np.unique(Image.open(out / "masks" / "00000.png"))) == {0, 1, 2}
