"""Training of the prompt network: the check of its pictures, its cost, and how a run goes on."""

import logging
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from stremn.data.readers.still_sets import open_stills
from stremn.data.readers.stills import StillImages
from stremn.errors import StremnError
from stremn.networks.presets import SegmentationConfig, build_model
from stremn.networks.pretrained import Pretrained
from stremn.prompting.network import build_prompt_network, start_from
from stremn.training.prompting import cost
from stremn.training.prompting.cost import StepTime, random_pictures
from stremn.training.prompting.data import PromptSamples, _warped, open_pictures
from stremn.training.prompting.losses import PromptLoss, first_prompts
from stremn.training.prompting.task import TASK
from stremn.training.tasks import train

CUT = "train.time_budget_minutes=1e-9"
"""Stop after one step."""

TINY = SegmentationConfig(
    backbone="resnet18", memory_encoder="shared-stem", key=8, value=16, update_key=8,
    decoder=(16, 16, 16),
)  # fmt: skip

STM = SegmentationConfig(
    family="stm", backbone="resnet18", key=8, value=16, update_key=0, decoder=(16, 16, 16),
    skips=True,
)  # fmt: skip


def write_picture(root: Path, name: str, object_value: int = 1, size: int = 64) -> None:
    """Write a picture of noise with a bright square, and the mask of the square."""
    pixels = np.random.default_rng(len(name)).integers(0, 128, (64, 64, 3), dtype=np.uint8)
    pixels[16:48, 16:48] += 100
    mask = np.zeros((size, size), np.uint8)
    mask[size // 4 : 3 * size // 4, size // 4 : 3 * size // 4] = object_value
    for folder, content in (("images", pixels), ("masks", mask)):
        (root / folder).mkdir(parents=True, exist_ok=True)
        Image.fromarray(content).save(root / folder / f"{name}.png")


@pytest.fixture
def stills(tmp_path: Path) -> Path:
    """Three pictures, one of which is held out."""
    for name in ("a", "b", "held"):
        write_picture(tmp_path / "stills", name)
    return tmp_path / "stills"


@pytest.fixture
def recipe(tmp_path: Path, stills: Path) -> Path:
    """Two small steps."""
    (tmp_path / "held.txt").write_text("held\n", encoding="utf-8")
    text = f"""
[prompts]
batch = 2
side = 32
held_out = "held.txt"
[stills.made]
path = "{stills}"
kind = "instances"
[train]
steps = 2
lr = 1e-4
device = "cpu"
"""
    path = tmp_path / "recipe.toml"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def dry_run(recipe: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Estimate the cost of the recipe with changes; steps are not timed."""
    monkeypatch.setattr(cost, "_step_time", lambda *_: StepTime(first=1.0, last=3.0))
    return lambda *changes: train(recipe, changes, None, resume=False, dry_run=True)


# ---------------------------------------------------------------- the check of the pictures


def test_pictures_that_cannot_be_used_are_listed_together_or_left_out(
    recipe: Path, stills: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_picture(stills, "small", size=32)
    write_picture(stills, "empty", object_value=0)
    (stills / "masks" / "b.png").unlink()
    listed = r"(?s)3 problem.*empty\.png: The mask is empty.*small\.png.*its mask 32x32.*b\.png"
    for resume in (False, True):
        with pytest.raises(StremnError, match=listed):
            TASK.run(recipe, [], tmp_path / "out", resume=resume)
    assert not (tmp_path / "out" / "log.csv").exists()
    caplog.set_level(logging.WARNING)
    result = TASK.run(recipe, ["data.check=skip"], tmp_path / "out")
    assert result.stopped == "finished"
    assert len([text for text in caplog.messages if text.startswith("left out")]) == 3


def test_what_is_left_out_is_left_out_again_when_resumed(
    recipe: Path, stills: Path, tmp_path: Path
) -> None:
    write_picture(stills, "aa", size=32)  # before b: the others have other numbers without it
    TASK.run(recipe, ["data.check=skip"], tmp_path / "whole")
    TASK.run(recipe, ["data.check=skip", CUT], tmp_path / "cut")
    TASK.run(recipe, ["data.check=skip"], tmp_path / "cut", resume=True)
    same_weights(tmp_path / "whole", tmp_path / "cut")


def test_a_check_that_is_off_reads_nothing(recipe: Path, stills: Path) -> None:
    write_picture(stills, "small", size=32)
    found = TASK.read(recipe, ["data.check=off"])
    assert len(open_pictures(found, recipe, check=True)["made"]) == 3


def test_a_held_out_picture_needs_no_mask(recipe: Path, stills: Path) -> None:
    (stills / "masks" / "held.png").unlink()
    assert len(open_pictures(TASK.read(recipe), recipe, check=True)["made"]) == 2


def test_masks_of_0_and_255_that_are_read_as_ids_are_explained(
    recipe: Path, stills: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        write_picture(stills, name, object_value=255)
    with pytest.raises(StremnError, match=r'(?s)2 problem.*"binary" \(in a recipe: stills\.made\.'):
        TASK.run(recipe, [], tmp_path / "out")
    TASK.run(recipe, ["stills.made.kind=binary", CUT], tmp_path / "out")


def test_the_draws_of_a_sample_end(stills: Path) -> None:
    for name in ("a", "b", "held"):
        write_picture(stills, name, object_value=255)
    made: list[StillImages] = [open_stills(stills, "instances")]
    with pytest.raises(StremnError, match=r"No usable picture in 1000 draws.* masks without obj"):
        PromptSamples(made, [1.0], 1, side=32)[0]


def test_a_set_whose_pictures_are_all_held_out_is_refused(recipe: Path, tmp_path: Path) -> None:
    (tmp_path / "held.txt").write_text("a\nb\nheld\n", encoding="utf-8")
    with pytest.raises(StremnError, match=r"All 3 pictures of stills\.made are held out"):
        TASK.run(recipe, [], tmp_path / "out")


def test_the_check_says_how_far_it_is(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stremn.data.readers.checking.TOLD_EVERY", -1.0)
    caplog.set_level(logging.INFO)
    open_pictures(TASK.read(recipe), recipe, check=True)
    assert "checking made: 2 of 2 files read" in caplog.messages


# ---------------------------------------------------------------- the cost


def test_a_dry_run_times_steps_and_samples(recipe: Path) -> None:
    text = train(recipe, [], None, resume=False, dry_run=True)
    assert "2 steps of 2 pictures of 32 px: " in text
    assert "s with 3 correction(s) of each" in text
    assert "pictures: made 2; making a sample takes" in text
    assert "a full run takes about 0.00 hours" in text


def test_a_full_run_takes_the_mean_over_all_numbers_of_corrections(
    dry_run: Callable[..., str],
) -> None:
    assert "takes about 2.00 hours" in dry_run("train.steps=3600")


def test_each_correction_is_one_more_answer() -> None:
    network, batch = build_prompt_network(TINY), random_pictures(2, 32)
    for corrections in (0, 2):
        rng = np.random.default_rng(0)
        answers: list[object] = []
        hook = network.register_forward_hook(lambda *_, answers=answers: answers.append(1))
        prompts = first_prompts(rng, batch)
        report = PromptLoss(2).with_corrections(network, batch, prompts, corrections, rng)
        hook.remove()
        assert len(answers) == 1 + corrections
        assert f"iou_{1 + corrections}" in report.scalars


def test_a_dry_run_lists_what_is_wrong_with_the_pictures(
    dry_run: Callable[..., str], stills: Path
) -> None:
    write_picture(stills, "small", size=32)
    (stills / "masks" / "b.png").unlink()
    text = dry_run()
    assert "training cannot start yet: 2 problem(s) in the training data" in text
    assert "its mask 32x32" in text
    assert "b.png: This image has no mask" in text
    assert "a full run takes about" in text


def test_a_dry_run_opens_the_weights_to_start_from(dry_run: Callable[..., str]) -> None:
    with pytest.raises(StremnError, match="nowhere"):
        dry_run("prompts.start=nowhere.safetensors")


def test_a_dry_run_trains_what_the_recipe_trains(dry_run: Callable[..., str]) -> None:
    whole, _, part = dry_run("train.lr_multipliers={'' = 0.0, hint = 1.0}").partition(" param")
    trained = int(part.partition(", ")[2].partition(" of them")[0].replace(",", ""))
    assert 0 < trained < 0.5 * int(whole.replace(",", ""))


# ---------------------------------------------------------------- weights to start from


def same_weights(first: Path, second: Path) -> None:
    expected, found = (load_file(folder / "last.safetensors") for folder in (first, second))
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_a_training_goes_on_without_what_it_started_from(recipe: Path, tmp_path: Path) -> None:
    weights = tmp_path / "video.safetensors"
    Pretrained(build_model(TINY), TINY).save(weights)
    start = f'prompts.start="{weights}"'
    TASK.run(recipe, [start], tmp_path / "whole")
    TASK.run(recipe, [start, CUT], tmp_path / "cut")
    weights.unlink()
    TASK.run(recipe, [start], tmp_path / "cut", resume=True)
    same_weights(tmp_path / "whole", tmp_path / "cut")
    with pytest.raises(StremnError, match=r"video\.safetensors"):
        TASK.run(recipe, [start], tmp_path / "new", resume=True)


def test_a_checkpoint_of_a_recipe_without_checks_goes_on(recipe: Path) -> None:
    found = TASK.read(recipe)
    before = {key: value for key, value in found.facts().items() if key != "data"}
    assert found.completed(before) == found.facts()


def test_a_start_of_another_family_is_refused(recipe: Path, tmp_path: Path) -> None:
    weights = tmp_path / "stm.safetensors"
    Pretrained(build_model(STM), STM).save(weights)
    with pytest.raises(StremnError, match=r"stm\.safetensors \(prompts\.start\).*family 'stm'"):
        TASK.run(recipe, [f'prompts.start="{weights}"'], tmp_path / "out")


def test_a_network_of_another_family_has_not_the_weights_to_start_from() -> None:
    network = build_prompt_network(STM.model_copy(update={"family": "stremn"}))
    with pytest.raises(StremnError, match=r"lacks \d+ of the weights .* the family 'stremn'"):
        start_from(network, build_model(STM))


# ---------------------------------------------------------------- samples


def test_a_picture_that_is_shrunk_is_averaged() -> None:
    stripes = np.zeros((256, 256, 3), np.uint8)
    stripes[:, ::2] = 200
    matrix = np.array([[0.2, 0.0, 3.0], [0.0, 0.2, 3.0]])
    cut = _warped(stripes, matrix, 0.2, (48, 48))[8:40, 8:40]
    assert np.abs(cut.astype(float) - 100).max() < 30


@pytest.mark.parametrize("scale", [0.2, 0.31, 0.66, 0.8, 1.5])
def test_a_picture_lies_where_its_mask_lies_at_any_scale(scale: float) -> None:
    ramp = np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (150, 1, 3))
    matrix = np.array([[-scale, 0.0, 40.0], [0.0, scale, 2.0]])  # mirrored
    cut = _warped(ramp, matrix, scale, (48, 48))
    columns = np.arange(48)
    source = (40.0 - columns) / scale
    inside = (source > 6) & (source < 194)
    expected = np.broadcast_to(source[inside], (18, inside.sum()))
    np.testing.assert_allclose(cut[4:22, inside, 0], expected, atol=1.0)
