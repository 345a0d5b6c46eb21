"""Narrower values give the same masks: exactly up to the decoder's width, nearly below it."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from stremn.errors import StremnError
from stremn.memory.fusion import FusionConfig
from stremn.memory.policies import Oldest
from stremn.networks.model import STReMN
from stremn.networks.narrowing import Example, narrowed
from stremn.networks.presets import SegmentationConfig, build_model
from stremn.networks.pretrained import Pretrained, load_model
from tiny_vos import davis

SCRIPT = Path(__file__).parents[2] / "scripts" / "narrow_weights.py"
WIDTH, OUTPUTS = 9, 6


def network(**changes: object) -> Pretrained:
    """A small network in float64 whose weights, hints too, are all random."""
    config = SegmentationConfig(
        backbone="test_efficientnet",
        memory_encoder="shared-stem",
        key=4,
        value=WIDTH,
        update_key=3,
        decoder=(OUTPUTS, 5, 4),
        skips=True,
        separable=True,
        rates=(1,),
        summary=True,
    ).model_copy(update=changes)
    torch.manual_seed(3)
    model = build_model(config).double().eval()
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.2)
    return Pretrained(model, config)


def examples(count: int = 4) -> list[Example]:
    generator = torch.Generator().manual_seed(1)

    def noise(channels: int) -> Tensor:
        return torch.rand(1, channels, 48, 64, generator=generator, dtype=torch.float64)

    return [(noise(3), noise(2)) for _ in range(count)]


def logits(model: STReMN) -> Tensor:
    """Decode a frame from a memory of two, with hints."""
    (one, its), (two, others), (three, _), _ = examples()
    video = torch.zeros(1, dtype=torch.int64)
    state = model.empty_state(1, 3, (48, 64))
    with torch.no_grad():
        for number, (frame, masks) in enumerate(((one, its), (two, others))):
            query = model.encode_query(frame)
            state, _ = model.memorize(state, query, masks, frame=number, policy=Oldest())
        query = model.encode_query(three)
        return model.recall(state, query, model.hints(state, query, video))


def test_nothing_is_lost_at_the_width_of_the_decoder() -> None:
    wide = network()
    narrow = narrowed(wide, OUTPUTS, examples())
    torch.testing.assert_close(logits(narrow.model), logits(wide.model), rtol=1e-9, atol=1e-9)
    assert narrow.config.value == OUTPUTS
    assert narrow.model.empty_state(1, 2, (32, 32)).values.shape[-1] == OUTPUTS
    assert wide.config.value == WIDTH


def test_nothing_is_lost_where_values_vary_along_few_directions() -> None:
    """Of six channels two would do: then two are enough, and the hint stays the same."""
    wide = network()
    with torch.no_grad():
        for value in (wide.model.memory_value, wide.model.query_value):
            conv = value.conv  # type: ignore[union-attr]
            mixed = torch.randn(WIDTH, 2, dtype=torch.float64) @ conv.weight[:2].flatten(1)
            conv.weight.copy_(mixed.view_as(conv.weight))
        hint = wide.model.hint.last  # type: ignore[union-attr]
        hint.weight.zero_()
        hint.bias.zero_()  # type: ignore[union-attr]
    narrow = narrowed(wide, 2, examples())
    torch.testing.assert_close(logits(narrow.model), logits(wide.model), rtol=1e-9, atol=1e-9)


def test_the_error_is_that_of_the_best_linear_code() -> None:
    """Principal components: the part of W v that is lost is the sum of the smallest eigenvalues."""
    wide, kept = network(), 3
    narrow = narrowed(wide, kept, examples())

    def seen(model: STReMN, value: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
        columns = model.decoder.pyramid.reduce.weight.flatten(1)  # type: ignore[operator,union-attr]
        parts = [value(*example).flatten(0, 2) for example in examples()]
        return torch.cat(parts) @ columns[:, : parts[0].shape[1]].T

    def stored(model: STReMN) -> Callable[[Tensor, Tensor], Tensor]:
        return lambda frame, masks: model.encode_memory(model.encode_query(frame), masks, 0).value

    with torch.no_grad():
        exact = seen(wide.model, stored(wide.model))
        coded = seen(narrow.model, stored(narrow.model))
    lost = (exact - exact.mean(0) - coded).square().sum() / (len(exact) - 1)
    smallest = torch.linalg.eigvalsh(torch.cov(exact.T))[: OUTPUTS - kept].sum()
    torch.testing.assert_close(lost, smallest)
    assert smallest > 1e-6


@pytest.mark.parametrize("values", [0, OUTPUTS + 1, WIDTH])
def test_widths_that_store_no_less_are_refused(values: int) -> None:
    with pytest.raises(
        StremnError, match=f"Values of {values} channels .* expected 1 to {OUTPUTS}"
    ):
        narrowed(network(), values, examples())


def test_networks_with_other_decoders_are_refused() -> None:
    with pytest.raises(StremnError, match="separable = true"):
        narrowed(network(separable=False), 3, examples())


def test_parts_that_are_as_wide_as_values_are_refused() -> None:
    """They would have random weights."""
    with pytest.raises(StremnError, match=r"write\..* depends on the width of values as well"):
        narrowed(network(fusion=FusionConfig()), 3, examples())


def test_frames_are_needed() -> None:
    with pytest.raises(StremnError, match="No frames were given"):
        narrowed(network(), 3, [])


def test_the_script_narrows_a_weights_file(tmp_path: Path) -> None:
    davis(tmp_path / "davis", {"square": [1]}, year=2016, split="train", count=3)
    run = [sys.executable, SCRIPT, "small", tmp_path / "davis", tmp_path / "out.safetensors"]
    done = subprocess.run([*run, "--values", "32"], check=False, capture_output=True, text=True)
    assert done.stdout == f"{tmp_path}/out.safetensors: values of 32 channels\n"
    assert load_model(tmp_path / "out.safetensors").config.value == 32
    again = subprocess.run([*run, "--values", "64"], check=False, capture_output=True, text=True)
    assert again.returncode == 1
    assert "Values of 64 channels were asked for, expected 1 to 63" in again.stderr
