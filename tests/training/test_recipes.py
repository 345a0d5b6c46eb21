import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch import nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from stremn.core.checkpoints import read_checkpoint, write_checkpoint
from stremn.data.clips.clip import collate
from stremn.errors import StremnError
from stremn.memory.policies import Learned, RandomDrop
from stremn.networks.presets import build_model
from stremn.networks.pretrained import load_model
from stremn.training.segmentation.cost import (
    estimate_cost,
    gradient_flops,
    most_objects,
    moving_square,
)
from stremn.training.segmentation.data import (
    clip_dataset,
    clip_parameters,
    open_data,
    open_videos,
    used_sources,
    validation_videos,
)
from stremn.training.segmentation.model import (
    StageLoss,
    first_model,
    model_config,
    training_policy,
)
from stremn.training.segmentation.recipe import (
    ModelSection,
    StageSection,
    ValidationSection,
    VideosSection,
)
from stremn.training.segmentation.task import TASK, probe_clips
from stremn.training.tasks import task_of, train
from tiny_vos import davis, square_labels, write_labels

RECIPES = Path(__file__).parents[2] / "recipes"

TINY = """
[model]
preset = "small"
[model.fields]
key = 8
value = 16
update_key = 8
decoder = [16, 16, 16]
[data.stills.some]
path = "stills"
[data.videos.davis]
path = "davis"
split = "train"
year = 2017
[data.sources.stills]
kind = "stills"
stills = ["some"]
[data.sources.videos]
kind = "videos"
videos = ["davis"]
gaps = [[0.0, 2]]
[data.sources.composed]
kind = "composed"
stills = ["some"]
videos = ["davis"]
[data.sources.composed.parameters]
foreign = 0.5
[data.sources.rendered]
kind = "rendered"
stills = ["some"]
parameters = { objects = 2, others = 0 }
[[stages]]
until = 0.5
frames = 2
size = 64
batch = 2
memory_slots = [2, 3]
policy = "random-drop"
sources = { stills = 1.0 }
[[stages]]
until = 1.0
frames = 4
size = 64
batch = 1
memory_slots = 2
policy = { learned = 0.5, random-drop = 0.5 }
sources = { videos = 0.4, composed = 0.3, rendered = 0.3 }
[loss]
dice = 0.5
bootstrap = 0.5
[train]
steps = 4
lr = 1e-3
ema = 0.9
device = "cpu"
log_every = 1
checkpoint_every = 1
validate_every = 4
[validation]
size = 64
memory_slots = 2
frames = 3
probe_clips = 2
[validation.videos]
path = "davis"
split = "train"
year = 2017
"""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    root = tmp_path / "data"
    davis(root / "davis", {"one": [1], "two": [1, 2]}, split="train")
    for folder in ("images", "masks"):
        (root / "stills" / folder).mkdir(parents=True)
    rng = np.random.default_rng(0)
    for index in range(3):
        image = rng.integers(0, 255, (48, 48, 3), dtype=np.uint8)
        mask = np.zeros((48, 48), np.uint8)
        mask[10:34, 12:36] = 255
        Image.fromarray(image).save(root / "stills" / "images" / f"{index}.jpg")
        Image.fromarray(mask).save(root / "stills" / "masks" / f"{index}.png")
    monkeypatch.setenv("STREMN_DATA", str(root))
    return root


@pytest.fixture
def recipe(tmp_path: Path, data: Path) -> Path:
    path = tmp_path / "tiny.toml"
    path.write_text(TINY)
    return path


VOS_RECIPES = sorted(p.stem for p in RECIPES.glob("*.toml") if task_of(p) is TASK)


@pytest.mark.parametrize("name", VOS_RECIPES)
def test_every_recipe_is_read_and_its_clips_have_what_it_sets(name: str) -> None:
    recipe = TASK.read(RECIPES / f"{name}.toml")
    assert task_of(RECIPES / f"{name}.toml") is TASK
    model_config(recipe.model)
    for source, section in recipe.data.sources.items():
        assert most_objects(section, source) >= 1
    assert f"recipes/{name}.toml" in (RECIPES / f"{name}.toml").read_text()


@pytest.mark.parametrize("name", [name for name in VOS_RECIPES if name.startswith("small-")])
def test_recipes_of_the_small_model(name: str) -> None:
    recipe = TASK.read(RECIPES / f"{name}.toml")
    assert recipe.model.preset == "small"
    assert (RECIPES / f"{name}.toml").read_text().startswith("# ")
    if recipe.model.start is not None:
        assert recipe.model.start == "small" or recipe.model.start.startswith("runs/small-")


def test_recipes_of_the_paper_to_the_letter() -> None:
    still = TASK.read(RECIPES / "resnet50-still.toml")
    video = TASK.read(RECIPES / "resnet50-video.toml")
    for recipe, frames in ((still, 5), (video, 10)):
        assert [s.frames for s in recipe.stages] == [frames]
        assert [s.size for s in recipe.stages] == [384]
        assert [s.memory_slots for s in recipe.stages] == [6]
        assert recipe.train.optimizer == "adam"
        assert (recipe.loss.dice, recipe.loss.bootstrap) == (0, 1)
        assert recipe.train.ema is None
    assert (still.train.lr, still.train.schedule) == (1e-4, "constant")
    assert (video.train.lr, video.train.lr_end, video.train.schedule) == (1e-5, 1e-7, "cosine")
    config = model_config(still.model)
    assert config.backbone == "resnet50_gn"
    assert config == model_config(video.model)


def test_whole_path_and_resuming_gives_the_same_weights(recipe: Path, tmp_path: Path) -> None:
    result = TASK.run(recipe, [], tmp_path / "whole")
    assert (result.step, result.stopped) == (4, "finished")
    assert result.best is not None
    assert 0 <= result.best <= 1
    header = (tmp_path / "whole" / "validation.csv").read_text().splitlines()[0]
    assert header == (
        "step,J,J_one,J_two,probe_right,probe_wrong,probe_empty,"
        "eviction_stake,evictions_that_matter"
    )
    strips = sorted((tmp_path / "whole" / "pictures" / "step_0000004").iterdir())
    assert [path.name for path in strips] == ["one.jpg", "two.jpg"]
    with Image.open(strips[0]) as strip:
        assert strip.size == (3 * round(56 * 160 / 40), 160)  # a tile a frame
    facts = json.loads((tmp_path / "whole" / "recipe.json").read_text())
    assert facts["stages"][0]["memory_slots"] == [2, 3]
    loaded = load_model(tmp_path / "whole" / "best.safetensors")
    assert loaded.config.key == 8

    budget = "train.time_budget_minutes=1e-9"  # stops after every step
    for step in (1, 2):
        cut = TASK.run(recipe, [budget], tmp_path / "cut", resume=step > 1)
        assert (cut.step, cut.stopped) == (step, "time budget")
    TASK.run(recipe, [], tmp_path / "cut", resume=True)
    expected, found = (load_file(tmp_path / n / "last.safetensors") for n in ("whole", "cut"))
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_resuming_with_changes(recipe: Path, tmp_path: Path) -> None:
    TASK.run(recipe, ["train.time_budget_minutes=1e-9"], tmp_path / "out")
    recipe.write_text(
        TINY.replace("dice = 0.5", "dice = 0.1").replace("size = 64", "size = 48"), encoding="utf-8"
    )
    message = r"loss\.dice: 0\.5 -> 0\.1; stages\.0\.size: 64 -> 48"
    with pytest.raises(StremnError, match=message):
        TASK.run(recipe, [], tmp_path / "out", resume=True)
    recipe.write_text(TINY, encoding="utf-8")
    changed = ["loss.dice=0.1", "train.time_budget_minutes=1e-9"]
    assert TASK.run(recipe, changed, tmp_path / "out", resume=True).step == 2


def test_a_key_newer_than_the_checkpoint_has_its_default(recipe: Path, tmp_path: Path) -> None:
    stop = ["train.time_budget_minutes=1e-9"]
    TASK.run(recipe, stop, tmp_path / "out")
    path = tmp_path / "out" / "checkpoint.safetensors"
    saved = read_checkpoint(path)
    del saved.facts["recipe"]["loss"]["imitate"]
    del saved.facts["train"]["threads"]
    write_checkpoint(path, saved)
    assert TASK.run(recipe, stop, tmp_path / "out", resume=True).step == 2


@pytest.mark.parametrize(
    ("rule", "weights"), [("evidence", "policies.evidence"), ("learned", "update_key")]
)
def test_imitation_trains_the_rule_alone(
    recipe: Path, tmp_path: Path, rule: str, weights: str
) -> None:
    overrides = [
        "loss.imitate=spread-occupied",
        f"loss.taught={rule}",
        "stages.0.frames=5",
        "stages.0.memory_slots=3",
        "stages.1.frames=5",
        "stages.1.memory_slots=3",
        f'train.lr_multipliers={{"" = 0.0, "{weights}" = 1.0}}',
    ]
    TASK.run(recipe, overrides, tmp_path / "out")
    header = (tmp_path / "out" / "log.csv").read_text().splitlines()[0]
    assert "agreement" in header
    saved = load_file(tmp_path / "out" / "checkpoint.safetensors")
    moments = {name for name in saved if name.startswith("optimizer.exp_avg.")}
    assert moments
    assert all(name.startswith(f"optimizer.exp_avg.{weights}.") for name in moments)
    moved = [saved[name] for name in moments if name.endswith(".weight")]
    assert any(x.abs().max() > 0 for x in moved)


def test_a_rule_that_cannot_learn_is_not_taught(recipe: Path, tmp_path: Path) -> None:
    frozen = [
        "loss.imitate=spread-occupied",
        "loss.taught=learned",
        "stages.0.frames=5",
        "stages.0.memory_slots=3",
        'train.lr_multipliers={"" = 0.0, "policies.evidence" = 1.0}',
    ]
    with pytest.raises(StremnError, match=r"none of its weights is trained.*of update_key"):
        TASK.run(recipe, frozen, tmp_path / "out")


def test_a_later_stage_starts_from_the_weights_of_an_earlier(recipe: Path, tmp_path: Path) -> None:
    TASK.run(recipe, ["train.steps=2"], tmp_path / "a")
    weights = tmp_path / "a" / "last.safetensors"
    start = f'model.start="{weights}"'
    stop = ["train.steps=2", "train.lr=1e-30", "train.ema=0.5"]
    TASK.run(recipe, [start, *stop], tmp_path / "b")
    before, after = load_file(weights), load_file(tmp_path / "b" / "last.safetensors")
    for name, tensor in before.items():
        torch.testing.assert_close(after[name], tensor, rtol=1e-5, atol=1e-6)
    with pytest.raises(StremnError, match=r"another model than the recipe describes: key: 8 -> 9"):
        TASK.run(recipe, [start, "model.fields.key=9"], tmp_path / "c")


def test_a_part_of_the_start_is_drawn_again_from_the_seed() -> None:
    def model(*overrides: str) -> dict[str, torch.Tensor]:
        recipe = TASK.read(RECIPES / "small-evidence.toml", ["model.start=small", *overrides])
        torch.manual_seed(recipe.train.seed)
        return first_model(recipe, model_config(recipe.model), None).state_dict()

    again = 'model.reinit=["policies.evidence"]'
    start, first, same, other = model(), model(again), model(again), model(again, "train.seed=1")
    changed = {name for name in start if not torch.equal(start[name], first[name])}
    assert changed == {name for name in start if name.startswith("policies.evidence.")}
    assert all(torch.equal(first[name], same[name]) for name in start)
    assert all(not torch.equal(first[name], other[name]) for name in changed)


def test_only_parts_of_a_start_are_drawn_again() -> None:
    recipe = TASK.read(
        RECIPES / "small-evidence.toml", ["model.start=small", 'model.reinit=["evidence"]']
    )
    with pytest.raises(StremnError, match=r"model.reinit names 'evidence'.*policies.evidence"):
        first_model(recipe, model_config(recipe.model), None)
    with pytest.raises(StremnError, match=r"reinit names decoder.*there is no start"):
        TASK.read(RECIPES / "small-still.toml", ['model.reinit=["decoder"]'])


def test_keys_of_earlier_versions_still_work() -> None:
    recipe = RECIPES / "small-zoom.toml"
    with pytest.warns(DeprecationWarning, match="'anew' in model is called 'reinit' now"):
        changed = TASK.read(recipe, ["model.start=small", 'model.anew=["decoder"]'])
    assert changed.model.reinit == ("decoder",)
    values = changed.validation.model_dump() | {"short_side": 96}
    del values["size"]
    with pytest.warns(DeprecationWarning, match="'short_side' in validation is called 'size' now"):
        assert ValidationSection(**values).size == 96
    with pytest.warns(DeprecationWarning, match="'slots' in stages.0 is called 'memory_slots' now"):
        changed = TASK.read(recipe, ["stages.0.slots=4"])
    assert changed.stages[0].memory_slots == 4
    with pytest.warns(DeprecationWarning, match="'slots' of StageSection is called"):
        assert changed.stages[0].slots == 4  # type: ignore[attr-defined]
    current = clip_parameters(changed.data.sources["composed"], "composed")
    section = changed.data.sources["composed"]
    old = section.parameters | {"kin": section.parameters["same_class"]}
    del old["same_class"]
    with pytest.warns(DeprecationWarning, match="'kin' in data.sources.composed.parameters"):
        earlier = clip_parameters(section.model_copy(update={"parameters": old}), "composed")
    assert earlier == current
    both = section.model_copy(update={"parameters": section.parameters | {"kin": 0.1}})
    with pytest.raises(StremnError, match="Unknown key 'kin'"):
        clip_parameters(both, "composed")


def test_tau_is_the_recipes_whatever_the_start_was_trained_with() -> None:
    recipe = TASK.read(RECIPES / "small-policy.toml", ["model.fields.tau=0.25"])
    model = first_model(recipe, model_config(recipe.model), None)
    assert [policy.tau for policy in model.policies.values()] == [0.25, 0.25]


@pytest.mark.parametrize("groups", [1, 4, 8])
@pytest.mark.parametrize("kind", [nn.Conv2d, nn.ConvTranspose2d])
def test_gradients_of_a_convolution_cost_twice_the_convolution(kind: type, groups: int) -> None:
    conv = kind(8, 8, 3, stride=2, padding=1, groups=groups)
    x = torch.randn(2, 8, 10, 12, requires_grad=True)
    with FlopCounterMode(display=False) as counter:
        y = conv(x)
    forward = counter.get_total_flops()
    formulas = {torch.ops.aten.convolution_backward: gradient_flops}
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == 2 * forward
    for weight in conv.parameters():
        weight.requires_grad_(False)
    y = conv(x)
    with FlopCounterMode(display=False, custom_mapping=formulas) as counter:
        y.sum().backward()
    assert counter.get_total_flops() == forward


def test_cost_needs_no_data_and_says_so_first(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("STREMN_DATA")

    def timed(*_: object) -> tuple[float, float]:
        assert "The data cannot be used" in caplog.text  # before any step
        return 1.0, 1e12

    monkeypatch.setattr("stremn.training.segmentation.cost._cost_of_a_step", timed)
    with caplog.at_level("INFO", logger="stremn"):
        text = train(recipe, ["train.steps=1000"], None, resume=False, dry_run=True)
    assert "stage 1 (2 frames of 64 px, batch 2): 500 steps of" in text
    assert "set the variable STREMN_DATA" in text
    assert "a full run takes about" in text


def test_a_dry_run_lists_what_is_wrong_with_the_data(
    recipe: Path, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (data / "stills" / "images" / "1.jpg").write_bytes(b"no image")
    (data / "stills" / "masks" / "2.png").unlink()
    monkeypatch.setattr("stremn.training.segmentation.cost._cost_of_a_step", lambda *_: (1.0, 1e12))
    text = train(recipe, [], None, resume=False, dry_run=True)
    assert "2 problem(s) in the training data" in text
    assert "1.jpg" in text
    assert "2.jpg: This image has no mask" in text


def test_a_dry_run_looks_for_the_videos_of_the_validation(
    recipe: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stremn.training.segmentation.cost._cost_of_a_step", lambda *_: (1.0, 1e12))
    unknown = ['validation.sequences=["no-such-video"]']
    text = train(recipe, unknown, None, resume=False, dry_run=True)
    assert "training cannot start yet" in text
    assert "no-such-video" in text


HELD_OUT = ["validation.videos.path=held-out", "validation.videos.split=val"]


def other_size(frames: Path, labels: Path) -> None:
    write_labels(labels / "00003.png", square_labels(3, [1], size=(40, 60)))


def cut_off(frames: Path, labels: Path) -> None:
    content = (frames / "00002.jpg").read_bytes()
    (frames / "00002.jpg").write_bytes(content[: len(content) // 2])


def empty_first_mask(frames: Path, labels: Path) -> None:
    write_labels(labels / "00000.png", np.zeros((40, 56), np.uint8))


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (other_size, "frames are 56x40 but 1 files are not: bad/00003.png"),
        (cut_off, "00002.jpg cannot be read"),
        (empty_first_mask, "bad: the first mask shows no object"),
    ],
)
def test_videos_of_the_validation_are_checked_before_the_first_step(
    recipe: Path,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    damage: Callable[[Path, Path], None],
    reason: str,
) -> None:
    root = davis(data / "held-out", {"good": [1], "bad": [1]})
    TASK.run(recipe, [*HELD_OUT, "train.time_budget_minutes=1e-9"], tmp_path / "before")
    damage(root / "JPEGImages" / "480p" / "bad", root / "Annotations" / "480p" / "bad")
    # Left out, a video would change the scores.
    for change in ("data.check=refuse", "data.check=skip"):
        with pytest.raises(StremnError, match=rf"(?s)1 problem.* validation.*{reason}"):
            TASK.run(recipe, [*HELD_OUT, change], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(StremnError, match=reason):
        TASK.run(recipe, HELD_OUT, tmp_path / "before", resume=True)
    monkeypatch.setattr("stremn.training.segmentation.cost._cost_of_a_step", lambda *_: (1.0, 1e12))
    text = train(recipe, HELD_OUT, None, resume=False, dry_run=True)
    assert "training cannot start yet" in text
    assert reason in text
    assert "a full run takes about" in text


def test_frames_that_a_validation_does_not_use_are_not_read(
    recipe: Path, data: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    root = davis(data / "held-out", {"good": [1], "bad": [1]})
    cut_off(root / "JPEGImages" / "480p" / "bad", root / "Annotations" / "480p" / "bad")
    monkeypatch.setattr("stremn.data.readers.checking.TOLD_EVERY", -1.0)
    caplog.set_level(logging.INFO)
    used = validation_videos(TASK.read(recipe, [*HELD_OUT, "validation.frames=2"]))
    assert used is not None
    assert [video.name for video in used] == ["good", "bad"]
    assert "checking the videos of the validation: 4 of 4 files read" in caplog.messages
    caplog.clear()
    assert validation_videos(TASK.read(recipe, [*HELD_OUT, "data.check=off"])) is not None
    assert not caplog.messages


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["train.monitor=J_three"], "monitor is 'J_three', but .* reports only J_one, J_two"),
        (["train.monitor=J_two", 'validation.sequences=["one"]'], "reports only J_one"),
        (["train.monitor=J_one", "validation.frames=1"], "no frame to score; raise validation"),
        (
            ["train.monitor=probe_right", "validation.probe_clips=0"],
            "monitor is 'probe_right', a score of probe clips, but validation.probe_clips is 0",
        ),
        (["train.monitor=eviction_stake", "validation.probe_clips=0"], "a score of probe clips"),
    ],
)
def test_a_monitor_that_is_not_reported_is_refused_before_the_first_step(
    recipe: Path, tmp_path: Path, changes: list[str], message: str
) -> None:
    with pytest.raises(StremnError, match=message):
        TASK.run(recipe, changes, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_resumed_run_may_watch_what_the_earlier_validation_did_not_report(
    recipe: Path, tmp_path: Path
) -> None:
    stop = "train.time_budget_minutes=1e-9"
    TASK.run(recipe, [stop, "validation.probe_clips=0"], tmp_path / "out")
    changed = TASK.run(recipe, [stop, "train.monitor=probe_right"], tmp_path / "out", resume=True)
    assert changed.best is not None


def test_features_are_measured_on_clips_of_the_first_stage_alone(recipe: Path) -> None:
    def weights(*changes: str) -> dict[str, torch.Tensor]:
        found = TASK.read(recipe, list(changes))
        dataset = clip_dataset(found, open_data(found.data, used_sources(found), check=False))
        torch.manual_seed(0)
        return first_model(found, model_config(found.model), dataset).state_dict()

    first, second = weights(), weights("stages.1.size=32")
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())


@pytest.mark.parametrize("name", ["small-policy", "small-evidence", "small-fusion"])
def test_cost_counts_what_the_recipe_trains_and_needs_no_weights(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    small = ["stages.0.size=64", "stages.0.batch=1", 'model.start="not/there.safetensors"']
    cost = estimate_cost(TASK.read(RECIPES / f"{name}.toml", small))
    assert 0 < cost.trainable < 0.3 * cost.parameters


def test_costs_are_those_of_clips_with_several_objects(recipe: Path) -> None:
    def flops(objects: int) -> float:
        sets = [f"data.sources.stills.parameters={{objects = {objects}}}", "stages.0.batch=4"]
        return estimate_cost(TASK.read(recipe, sets)).stages[0].flops

    assert flops(4) > 1.3 * flops(1)
    labels = moving_square(TASK.read(recipe).stages[0], 0, 4).labels
    assert np.unique(labels).tolist() == [0, 1, 2, 3, 4]


def test_cost_measures_clips_where_the_data_is(recipe: Path) -> None:
    cost = estimate_cost(TASK.read(recipe, ["model.freeze=stem-and-depthwise"]))
    assert "ms on one core" in cost.data
    assert 0 < cost.trainable < cost.parameters
    assert cost.peak_bytes > 2**20
    expected = sum(stage.steps * stage.seconds for stage in cost.stages) / 3600
    assert cost.hours == pytest.approx(expected)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.preset=tiny", "Unknown preset 'tiny'; known: resnet50, small"),
        ("model.fields={kye = 3}", r"model\.fields: Unknown key 'kye'\. Did you mean 'key'\?"),
        ("stages.1.until=0.9", r"the last at 1, got \[0\.5, 0\.9\]"),
        ("stages.0.until=1.0", r"one after the other, the last at 1"),
        ("stages.0.sources={film = 1.0}", "no source 'film' under data; known: stills, videos"),
        ('data.sources.stills.stills=["x"]', "no stills 'x' under data; known: some"),
        ('data.sources.videos.videos=["x"]', "no videos 'x' under data; known: davis"),
        ("data.sources.videos.videos=[]", r"data\.sources\.videos makes clips of videos, but"),
        ("stages.0.size=60", "multiple of 16"),
        (
            "data.sources.composed.parameters={forein = 1}",
            r"Unknown key 'forein' in data\.sources\.composed\.parameters\. Known keys: away",
        ),
        (
            "data.sources.composed.parameters={motion = {angel = 1}}",
            r"Unknown key 'angel' in data\.sources\.composed\.parameters\.motion",
        ),
        (
            "data.sources.composed.parameters={motion = {angle = 'steep'}}",
            r"data\.sources\.composed\.parameters: motion\.angle: .* valid number.*got 'steep'",
        ),
        ("stages.0.policy=oldst", "There is no policy 'oldst'"),
        ("validation.policy=oldst", "There is no policy 'oldst'"),
        ("loss.imitate=oldst", "There is no policy 'oldst'"),
        ("train.monitor=JJ", "train.monitor is 'JJ', but validation reports J, probe_right"),
        ("loss.imitate=spread", "evicted from [23] slots in clips of 2 frames, so there is no"),
        ("train.steps=0", "train.steps: Input should be greater than 0"),
    ],
)
def test_mistakes_are_explained(recipe: Path, tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(StremnError, match=message):
        TASK.run(recipe, [change], tmp_path / "out")


def test_broken_data_is_listed_together_or_left_out(
    recipe: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Image.fromarray(np.zeros((48, 48), np.uint8)).save(data / "stills" / "masks" / "0.png")
    (data / "stills" / "images" / "1.jpg").write_bytes(b"no image")
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(data / "stills" / "masks" / "lone.png")
    with pytest.raises(StremnError, match=r"(?s)3 problem.*0\.jpg: .*empty.*1\.jpg.*lone\.png"):
        TASK.run(recipe, [], tmp_path / "a")
    caplog.set_level(logging.WARNING)
    TASK.run(recipe, ["data.check=skip", "train.time_budget_minutes=1e-9"], tmp_path / "b")
    assert len([r for r in caplog.messages if r.startswith("left out")]) == 3


def test_broken_videos_are_listed_with_the_rest_or_left_out(
    recipe: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = data / "davis"
    for name in ("bare", "torn"):
        for folder in ("JPEGImages", "Annotations"):
            shutil.copytree(root / folder / "480p" / "one", root / folder / "480p" / name)
    for path in (root / "Annotations" / "480p" / "bare").iterdir():
        path.unlink()
    (root / "JPEGImages" / "480p" / "torn" / "00002.jpg").write_bytes(b"no image")
    (root / "ImageSets" / "2017" / "more.txt").write_text("one\nbare\ntorn\n")
    (data / "stills" / "images" / "1.jpg").write_bytes(b"no image")
    more = "data.videos.davis.split=more"
    listed = r"(?s)3 problem.*bare: .*6 frames have no mask.*1\.jpg.*torn: .*00002\.jpg"
    with pytest.raises(StremnError, match=listed):
        TASK.run(recipe, [more], tmp_path / "a")
    with pytest.raises(StremnError, match="6 frames have no mask"):
        TASK.run(recipe, [more, "data.check=off"], tmp_path / "a")
    caplog.set_level(logging.WARNING)
    skip = [more, "data.check=skip", "train.time_budget_minutes=1e-9"]
    TASK.run(recipe, skip, tmp_path / "b")
    assert len([r for r in caplog.messages if r.startswith("left out")]) == 3
    with pytest.raises(StremnError, match=r"Every video of data\.videos\.davis has a problem"):
        TASK.run(recipe, [*skip, 'data.videos.davis.names=["bare", "torn"]'], tmp_path / "c")


def test_the_check_of_the_data_says_how_far_it_is(
    recipe: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("stremn.data.readers.checking.TOLD_EVERY", -1.0)
    caplog.set_level(logging.INFO)
    found = TASK.read(recipe, [])
    open_data(found.data, used_sources(found), check=True)
    assert "checking some: 3 of 3 files read" in caplog.messages
    assert "checking davis: 12 of 12 files read" in caplog.messages


def test_workers_that_share_nothing_make_the_same_clips(recipe: Path) -> None:
    found = TASK.read(recipe, [])
    opened = open_data(found.data, used_sources(found), check=False)
    dataset = clip_dataset(found, opened)
    ours = [dataset[index].frames for index in range(len(dataset))]  # caches are filled, too
    loader = DataLoader(
        dataset, batch_size=None, num_workers=1, multiprocessing_context="spawn"
    )  # as macOS starts them
    for mine, theirs in zip(ours, loader, strict=True):
        np.testing.assert_array_equal(mine, theirs.frames)


def test_a_training_goes_on_without_what_it_started_from(recipe: Path, tmp_path: Path) -> None:
    TASK.run(recipe, ["train.time_budget_minutes=1e-9"], tmp_path / "first")
    weights = tmp_path / "first" / "last.safetensors"
    start = f'model.start="{weights}"'
    TASK.run(recipe, [start], tmp_path / "whole")
    TASK.run(recipe, [start, "train.time_budget_minutes=1e-9"], tmp_path / "cut")
    weights.unlink()
    TASK.run(recipe, [start], tmp_path / "cut", resume=True)
    expected, found = (load_file(tmp_path / n / "last.safetensors") for n in ("whole", "cut"))
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_data_are_checked_where_there_is_nothing_to_resume(
    recipe: Path, data: Path, tmp_path: Path
) -> None:
    (data / "stills" / "images" / "1.jpg").write_bytes(b"no image")
    with pytest.raises(StremnError, match=r"1 problem\(s\) in the training data"):
        TASK.run(recipe, [], tmp_path / "out", resume=True)


def test_composed_clips_ask_for_objects_to_cut_out_before_training(
    recipe: Path, data: Path, tmp_path: Path
) -> None:
    for path in (data / "stills" / "masks").iterdir():
        Image.fromarray(np.ones((48, 48), np.uint8)).save(path)
    with pytest.raises(StremnError, match=r"No object lies whole .* in data\.stills\."):
        TASK.run(recipe, [], tmp_path / "out")
    assert not (tmp_path / "out" / "log.csv").exists()


def test_what_is_left_out_is_left_out_again_when_resumed(
    recipe: Path, data: Path, tmp_path: Path
) -> None:
    (data / "stills" / "images" / "1.jpg").write_bytes(b"no image")
    skip = ["data.check=skip", "stages.1.sources={composed = 1.0}"]
    TASK.run(recipe, skip, tmp_path / "whole")
    TASK.run(recipe, [*skip, "train.time_budget_minutes=1e-9"], tmp_path / "cut")
    TASK.run(recipe, skip, tmp_path / "cut", resume=True)
    expected, found = (load_file(tmp_path / n / "last.safetensors") for n in ("whole", "cut"))
    for name, tensor in expected.items():
        assert torch.equal(found[name], tensor), name


def test_the_probe_has_clips_that_training_never_draws(recipe: Path) -> None:
    still = TASK.read(recipe, ["stages.0.until=0.001", "stages.1.sources={stills = 1.0}"])
    opened = open_data(still.data, used_sources(still), check=False)
    dataset = clip_dataset(still, opened)
    drawn = {dataset[index].frames.tobytes() for index in range(len(dataset))}
    probed = [clip.frames.tobytes() for clip in probe_clips(still, opened, 4)]
    assert len(drawn) == 4
    assert len(set(probed)) == 4
    assert not drawn & set(probed)


def test_policy_and_slots_are_drawn_from_the_recipe() -> None:
    stage = StageSection(
        until=1.0,
        frames=5,
        size=64,
        batch=2,
        memory_slots=(2, 3),
        policy={"oldest": 1.0, "random-drop": 1.0},
        sources={"x": 1.0},
    )
    model = build_model(model_config(read_tiny_model()))
    loss = StageLoss(stage, TASK.read(RECIPES / "small-still.toml").loss)
    batch = collate([moving_square(stage, seed) for seed in range(2)])
    drawn = [loss(model, batch, step / 12).scalars["evictions"] for step in range(12)]
    # Slot 0 is pinned: of 3 writes after it, 2 slots leave no choice, 3 slots choose once.
    assert set(drawn) == {0.0, 1.0}
    # Whatever else was drawn meanwhile, as by the other processes of a batch.
    again = [loss(model, batch, step / 12).scalars["evictions"] for step in range(12)]
    assert again == drawn
    other = StageLoss(stage, loss.loss, seed=1)
    assert [other(model, batch, step / 12).scalars["evictions"] for step in range(12)] != drawn


def read_tiny_model():
    fields = {"key": 8, "value": 16, "update_key": 8, "decoder": (16, 16, 16)}
    return ModelSection(preset="small", fields=fields)


def test_a_learned_rule_is_compared_with_hand_made_ones() -> None:
    stage = StageSection(
        until=1.0, frames=5, size=64, batch=1, memory_slots=3, policy="learned", sources={"x": 1.0}
    )
    model = build_model(model_config(read_tiny_model()))
    loss = StageLoss(stage, TASK.read(RECIPES / "small-still.toml").loss)
    scalars = loss(model, collate([moving_square(stage, 0)]), 0.0).scalars
    agreements = {name: value for name, value in scalars.items() if name.startswith("agrees_")}
    assert {"agrees_oldest", "agrees_most-similar", "agrees_spread"} <= agreements.keys()
    # One eviction among two slots: oldest and newest disagree, and one of them is right.
    assert agreements["agrees_oldest"] + agreements["agrees_newest"] == 1.0


def test_training_policies() -> None:
    model = build_model(model_config(read_tiny_model()))
    assert training_policy(model, "learned") is model.policies["learned"]
    assert isinstance(model.policies["learned"], Learned)
    fresh = training_policy(model, "random-drop")
    assert isinstance(fresh, RandomDrop)
    assert fresh.seed is None  # another draw at every step
    with pytest.raises(StremnError, match="There is no policy 'x'"):
        training_policy(model, "x")


def test_model_is_trained_where_it_is_not_frozen(recipe: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    overrides = ["model.freeze=stem-and-depthwise", "train.time_budget_minutes=1e-9"]
    result = TASK.run(recipe, overrides, tmp_path / "out")
    assert isinstance(result.model, nn.Module)
    saved = load_file(tmp_path / "out" / "checkpoint.safetensors")
    moments = {name for name in saved if name.startswith("optimizer.exp_avg.")}
    assert moments
    assert not any(".stem." in name for name in moments)


@pytest.mark.slow
def test_the_papers_model_learns() -> None:
    """Adam 1e-4 and cross entropy, as its recipe says, on one small clip."""
    recipe = TASK.read(RECIPES / "resnet50-still.toml")
    model = build_model(model_config(recipe.model)).train()
    stage = recipe.stages[0].model_copy(update={"frames": 2, "size": 64, "batch": 1})
    batch = collate([moving_square(stage, 0)])
    optimizer = torch.optim.Adam(model.parameters(), recipe.train.lr)
    losses = []
    for _ in range(12):
        report = StageLoss(stage, recipe.loss)(model, batch, 0.0)
        optimizer.zero_grad()
        report.loss.backward()
        optimizer.step()
        losses.append(report.loss.item())
    assert losses[-1] < 0.5 * losses[0]


def test_a_folder_of_ones_own_videos_is_opened_as_the_walk_through_says(tmp_path: Path) -> None:
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / kind / "walk").mkdir(parents=True)
    for i in range(3):
        picture, ids = np.zeros((32, 48, 3), np.uint8), np.full((32, 48), int(i > 0), np.uint8)
        Image.fromarray(picture).save(tmp_path / "JPEGImages" / "walk" / f"{i}.jpg")
        Image.fromarray(ids).save(tmp_path / "Annotations" / "walk" / f"{i}.png")
    section = VideosSection(path=str(tmp_path), layout="folders")
    (video,) = open_videos(section)
    assert (video.name, len(video)) == ("walk", 3)
    label = video.label(2)  # the object enters after the first frame
    assert label is not None
    assert label.all()
    (named,) = open_videos(section.model_copy(update={"names": ("walk",)}))
    assert named.name == "walk"
    with pytest.raises(StremnError, match="'run'"):
        open_videos(section.model_copy(update={"names": ("run",)}))
