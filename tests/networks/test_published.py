"""STM and STCN: equal to their official code, on the one memory, from the official files."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from drawn_checkpoint import drawn_checkpoint
from published_clip import FOLDER, STEP, clip
from stremn.cli.app import app
from stremn.errors import StremnError
from stremn.networks.conversion import (
    FAMILIES,
    STCN,
    STM,
    Official,
    convert,
    from_official,
    layout,
)
from stremn.networks.pretrained import Pretrained, load_model
from stremn.segmentation.sessions import SegmentationSession

PREFIXES = {"STM": "Encoder_Q", "STCN": "key_encoder"}


@cache
def drawn(family: Official) -> dict[str, torch.Tensor]:
    """A checkpoint of random weights; not to be changed."""
    return drawn_checkpoint(family, 0)


@cache
def converted(family: Official) -> Pretrained:
    return from_official(drawn(family), "drawn")


# ------------------------------------------------------------------- equal to the official code


@pytest.mark.parametrize(
    ("family", "schedule", "every"),
    [(STCN, "every", 5), (STCN, "latest", 1), (STM, "latest", 1)],
    ids=["stcn", "stcn with the latest", "stm"],
)
def test_the_official_schedule_gives_the_official_probabilities(
    family: Official, schedule: str, every: int
) -> None:
    frames, labels = clip()
    session = SegmentationSession(
        converted(family).model,
        device="cpu",
        precision="float32",
        policy="append",
        every=every,
        size=frames.shape[1],
        reach=None,
    )
    with np.load(FOLDER / "official.npz") as official:
        expected = official[f"{family.preset}-{schedule}"]
    assert float(np.abs(np.diff(expected, axis=0)).max()) > 0.1  # there is something to get wrong
    session.step(frames[0], labels)
    for frame, wanted in zip(frames[1:], expected, strict=True):
        found = session.step(frame).probabilities[:, ::STEP, ::STEP]
        np.testing.assert_allclose(found, wanted, atol=1e-4)


def test_drawn_weights_depend_on_seed_and_name_alone() -> None:
    """The numbers of tests/published/official.npz belong to these."""
    weights = drawn(STCN)
    assert float(weights["key_proj.key_proj.weight"].flatten()[1]) == pytest.approx(
        0.004166203, abs=1e-8
    )
    assert list(weights) == sorted(layout(STCN))
    assert weights["key_comp.bias"].std() == pytest.approx(0.05, rel=0.1)


# --------------------------------------------------------------------------- the official files


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.title)
@pytest.mark.parametrize("prefix", ["", "module."])
def test_convert_makes_a_file_that_is_a_model(
    family: Official, prefix: str, tmp_path: Path
) -> None:
    path, out = tmp_path / "official.pth", tmp_path / "out.safetensors"
    torch.save({prefix + name: x for name, x in drawn(family).items()}, path)
    done = CliRunner().invoke(app, ["convert", str(path), "-o", str(out)])
    assert done.exit_code == 0, done.output
    assert family.title in done.output
    again, expected = load_model(out), converted(family)
    assert again.config == expected.config
    for name, x in expected.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], x), name


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.title)
def test_every_tensor_is_used(family: Official) -> None:
    """A change of any tensor but BatchNorm's counters and the checked constants is seen."""
    weights, before = dict(drawn(family)), converted(family).model.state_dict()
    fixed = ("num_batches_tracked", ".mean", ".std")
    for name in weights:
        if not name.endswith(fixed):
            weights[name] = weights[name] + 0.5
    changed = from_official(weights, "changed").model.state_dict()
    assert all(not torch.equal(before[name], x) for name, x in changed.items() if x.numel() > 2)
    counters = {name for name in weights if name.endswith(fixed[0])}
    fewer = {name: x for name, x in drawn(family).items() if name not in counters}
    same = from_official(fewer, "without counters").model.state_dict()
    assert all(torch.equal(before[name], x) for name, x in same.items())


def wrong(family: Official, **changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    changed = {**drawn(family), **{name.replace("__", "."): x for name, x in changes.items()}}
    return {name: x for name, x in changed.items() if x is not None}


@pytest.mark.parametrize(
    ("family", "changes", "words"),
    [
        (
            STCN,
            {"value_encoder__conv1__weight": torch.zeros(64, 4, 7, 7)},
            "static images.*4 input",
        ),
        (STCN, {"key_comp__bias": None}, r"lacks key_comp\.bias\. Expected the 405 tensors"),
        (STCN, {"key_comp__gain": torch.zeros(1)}, r"has besides key_comp\.gain"),
        (STM, {"KV_M_r4__Key__weight": torch.zeros(64, 1024, 3, 3)}, "64x1024x3x3, expected 128x"),
        (STM, {"Encoder_M__mean": torch.zeros(1, 3, 1, 1)}, "normalizes images with other numbers"),
    ],
)
def test_another_checkpoint_is_refused_in_a_sentence(
    family: Official, changes: dict[str, torch.Tensor | None], words: str
) -> None:
    with pytest.raises(StremnError, match=words):
        from_official(wrong(family, **changes), "weights.pth")


class Code:
    """Runs when it is unpickled."""

    def __reduce__(self):  # type: ignore[no-untyped-def]
        return (Path.touch, (Path("ran"),))


def test_files_that_are_no_checkpoint_are_refused_in_a_sentence(tmp_path: Path) -> None:
    path = tmp_path / "stcn.pth"
    with pytest.raises(StremnError, match="There is no checkpoint"):
        convert(path)
    torch.save({"x": Code()}, path)
    with pytest.raises(
        StremnError, match=r"holds more than tensors.*Expected an official checkpoint"
    ):
        convert(path)
    assert not Path("ran").exists()
    torch.save({"key_comp.bias": torch.zeros(512)}, path)
    whole = path.read_bytes()
    with pytest.raises(
        StremnError, match=r"is not a checkpoint of STM or STCN: expected.*key_comp"
    ):
        convert(path)
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StremnError, match=r"cannot be read \([^.]+\)\. Expected [^.]+\.$"):
        convert(path)
    done = CliRunner().invoke(app, ["convert", str(path), "-o", str(tmp_path / "x.pth")])
    assert isinstance(done.exception, StremnError)
    assert "safetensors" in str(done.exception)
