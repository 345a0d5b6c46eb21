"""Boxes, clicks and rough masks become masks with the prompt network."""

import json
import threading
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

import stremn
from stremn.cli.app import app
from stremn.errors import StremnError
from stremn.evaluation.prompting.evaluation import PromptScores, iou
from stremn.media.encoding import write_video
from stremn.media.finding import Click, grab_cut, without_others
from stremn.media.frames import Picture
from stremn.media.given import masks_for
from stremn.media.masks import LabelMap
from stremn.media.object_prompts import ObjectPrompt, find_objects, parse_object
from stremn.media.prompts import Box
from stremn.media.video import open_frames
from stremn.networks.presets import PRESETS, build_model
from stremn.prompting.masks import LearnedFinder, mask_finder
from stremn.prompting.network import build_prompt_network, start_from
from stremn.prompting.planes import MaskPrompt, next_click, prompt_planes
from stremn.prompting.prompter import PromptedFrame
from stremn.prompting.weights import load_prompt_network
from stremn.training.prompting.data import PromptSamples, collate, open_pictures
from stremn.training.prompting.losses import PromptLoss, first_prompt
from stremn.training.prompting.recipe import PromptRecipe
from stremn.training.prompting.task import TASK
from stremn.training.tasks import task_of, train

HEIGHT, WIDTH = 240, 320


def scene() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """An orange and a green ellipse on a textured blue ground, and where they are."""
    rng = np.random.default_rng(0)
    frame = (np.array([40, 70, 130]) + rng.integers(-25, 25, (HEIGHT, WIDTH, 3))).astype(np.uint8)
    masks = []
    for centre, color in (((110, 120), (220, 140, 40)), ((220, 110), (60, 180, 70))):
        mask = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.ellipse(mask, centre, (45, 32), 20, 0, 360, 1, cv2.FILLED)
        thing = np.array(color) + rng.integers(-25, 25, (HEIGHT, WIDTH, 3))
        frame = np.where(mask[..., None] > 0, thing, frame).clip(0, 255).astype(np.uint8)
        masks.append(mask > 0)
    return frame, masks[0], masks[1]


@pytest.fixture(scope="module")
def find() -> LearnedFinder:
    """The shipped network."""
    finder = mask_finder(device="cpu")
    assert isinstance(finder, LearnedFinder)
    return finder


# ---------------------------------------------------------------- prompts as planes


def test_planes_show_every_part_of_a_prompt() -> None:
    previous, others = np.full((32, 48), 0.25, np.float32), np.zeros((32, 48), bool)
    others[0, 0] = True
    clicks = (Click(10, 12, True), Click(30, 20, False))
    planes = prompt_planes(MaskPrompt(clicks, (4.0, 6.0, 20.0, 22.0), previous, others), (32, 48))
    assert planes.shape == (5, 32, 48)
    assert (planes[0] == 0.25).all()
    assert planes[1, 12, 10] == 1
    assert planes[1, 20, 30] == 0
    assert planes[2, 20, 30] == 1
    assert planes[3].sum() == 16 * 16
    assert planes[3, 6, 4] == 1
    assert planes[4].sum() == 1
    assert prompt_planes(MaskPrompt(), (32, 48)).sum() == 0


def test_the_next_click_is_the_centre_of_the_largest_error() -> None:
    truth, found = np.zeros((60, 80), bool), np.zeros((60, 80), bool)
    truth[10:31, 20:41] = True
    assert next_click(found, truth) == Click(30, 20, True)
    found[10:31, 20:41] = True
    found[40:51, 50:61] = True
    assert next_click(found, truth) == Click(55, 45, False)
    assert next_click(truth, truth) is None
    ignored = np.zeros_like(truth)
    ignored[40:51, 50:61] = True
    assert next_click(found, truth, ignored) is None


# ---------------------------------------------------------------- the network


def test_the_hint_starts_as_nothing_and_the_video_weights_are_taken_over() -> None:
    video = build_model(PRESETS["small"])
    network = build_prompt_network(PRESETS["small"])
    start_from(network, video)
    own, theirs = network.model.state_dict(), video.state_dict()
    same = [name for name in own if own[name].shape == theirs[name].shape]
    assert all(torch.equal(own[name], theirs[name]) for name in same)
    assert 0 < len(own) - len(same) < 6
    planes = torch.rand(2, 5, 64, 64)
    query = network.encode(torch.rand(2, 3, 64, 64))
    before = network(query, planes)
    assert before.shape == (2, 64, 64)
    with torch.no_grad():
        network.hint[0].weight.mul_(7)
    torch.testing.assert_close(network(query, planes), before)
    network(query, planes).sum().backward()
    assert float(network.hint[2].weight.grad.abs().sum()) > 0
    assert float(network.model.memory_value.conv.weight.grad.abs().sum()) > 0


def test_weights_of_another_task_are_refused(tmp_path: Path) -> None:
    weights = Path(stremn.__file__).parent / "weights" / "small.safetensors"
    with pytest.raises(StremnError, match="holds a model for segmentation; expected one for prom"):
        load_prompt_network(weights)
    with pytest.raises(StremnError, match="nowhere"):
        load_prompt_network(tmp_path / "nowhere.safetensors")


# ---------------------------------------------------------------- finding objects


def test_a_box_tight_or_loose_gives_the_object(find: LearnedFinder) -> None:
    frame, orange, green = scene()
    for truth in (orange, green):
        x, y, w, h = cv2.boundingRect(truth.astype(np.uint8))
        assert iou(find(frame, box=Box(x, y, w, h)), truth) > 0.9
        assert iou(find(frame, box=Box(x - 9, y - 7, w + 18, h + 14)), truth) > 0.9


def test_clicks_choose_the_object_and_correct_a_mask(find: LearnedFinder) -> None:
    frame, orange, green = scene()
    on_green = Click(220, 110, True)
    found = find(frame, clicks=[on_green])
    assert (found & green).sum() > 0.9 * green.sum()
    assert (found & ~(orange | green)).sum() < 0.1 * green.sum()
    less = find(frame, clicks=[Click(110, 120, False)], previous=orange | green)
    assert not less[120, 110]
    assert (less & green).sum() > 0.5 * green.sum(), "a click off never takes all away"


def test_an_object_does_not_get_the_pixels_of_another(find: LearnedFinder) -> None:
    frame, orange, _ = scene()
    others = np.zeros_like(orange)
    others[:, :110] = True
    found = find(frame, box=Box(60, 80, 100, 80), others=others)
    assert not (found & others).any()
    assert iou(found, orange & ~others) > 0.8


def test_the_same_prompt_again_costs_nothing_and_gives_the_same(
    find: LearnedFinder, monkeypatch: pytest.MonkeyPatch
) -> None:
    frame, _, _ = scene()
    clicks = [Click(110, 120, True), Click(10, 10, False)]
    first = find(frame, clicks=clicks)
    monkeypatch.setattr(find, "_prompter", None)  # nothing is computed again
    np.testing.assert_array_equal(find(frame, clicks=clicks), first)


def test_the_same_click_on_two_frames_at_once_gives_each_its_own_mask(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first, _, _ = scene()
    second = np.ascontiguousarray(first[:, ::-1])
    clicks = [Click(160, 120, True)]
    expected = mask_finder(device="cpu")(second, clicks=clicks)
    shared, answer = mask_finder(device="cpu"), PromptedFrame.find
    other = threading.Thread(target=lambda: shared(second, clicks=clicks))

    def interrupted(marked: PromptedFrame, prompt: MaskPrompt) -> np.ndarray:
        if other.ident is None:  # the second caller comes while the first is being answered
            other.start()
            other.join(timeout=2)
        return answer(marked, prompt)

    monkeypatch.setattr(PromptedFrame, "find", interrupted)
    assert not np.array_equal(shared(first, clicks=clicks), expected)
    other.join()
    np.testing.assert_array_equal(shared(second, clicks=clicks), expected)


def test_the_next_frame_in_the_same_array_is_another_frame(find: LearnedFinder) -> None:
    first, _, _ = scene()
    second = np.ascontiguousarray(first[:, ::-1])
    box = Box(60, 80, 100, 80)
    expected = find(second, box=box)
    array = first.copy()
    before = find(array, box=box)
    array[:] = second
    np.testing.assert_array_equal(find(array, box=box), expected)
    assert not np.array_equal(before, expected)


def test_an_open_frame_stays_as_it_was_when_it_was_opened(find: LearnedFinder) -> None:
    array, _, _ = scene()
    marked = find._prompter.open(array)
    prompt = MaskPrompt(box=(60.0, 80.0, 160.0, 160.0))
    expected = find._prompter.open(array.copy()).find(prompt)
    array[:] = 0
    np.testing.assert_array_equal(marked.find(prompt), expected)


@pytest.mark.parametrize("name", ["small", "grabcut"])
def test_prompts_that_cannot_be_answered(name: str) -> None:
    frame, orange, _ = scene()
    find = mask_finder(name, device="cpu")
    cases = [
        ({}, "Say what to find"),
        ({"clicks": [Click(400, 5, True)]}, "click 400,5 is outside the frame of 320x240"),
        ({"clicks": [Click(9, 5, True), Click(9, 5, False)]}, "on the object and off it"),
        ({"box": Box(400, 5, 20, 20)}, "no part inside the frame"),
        ({"box": Box(4, 5, 2, 2)}, "too small: 2x2 pixels"),
        ({"previous": orange, "others": np.ones_like(orange)}, "No object was found"),
    ]
    for arguments, message in cases:
        with pytest.raises(StremnError, match=message):
            find(frame, **arguments)


def test_from_python() -> None:
    frame, orange, _ = scene()
    found = stremn.mask_from(frame, box=(60, 80, 100, 80), on=[(110, 120)], device="cpu")
    assert iou(found, orange) > 0.85
    assert iou(stremn.mask_from(frame, box=(60, 80, 100, 80), model="grabcut"), orange) > 0.85


# ---------------------------------------------------------------- objects in words


def test_an_object_in_words() -> None:
    expected = ObjectPrompt(
        2, Box(1, 2, 30, 40), (Click(5, 6, True), Click(7, 8, False), Click(9, 9, True)), 12
    )
    assert parse_object("id=2 box=1,2,30,40 on=5,6 off=7,8 on=9,9 at=12") == expected
    assert parse_object("on=5,6") == ObjectPrompt(1, None, (Click(5, 6, True),), 0)
    stroke = (Click(5, 6, True), Click(7, 8, True), Click(9, 9, True))
    assert parse_object("on=5,6;7,8;9,9").clicks == stroke
    assert not parse_object("off=3,4").says_where


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "needs a box= or an on="),
        ("box=1,2,3", "A box is four numbers"),
        ("id=0 on=1,1", "id is a whole number from 1"),
        ("at=-1 on=1,1", "at is a whole number from 0"),
        ("near=1,1", "cannot understand 'near=1,1'"),
        ("on", "cannot understand 'on'"),
    ],
)
def test_text_that_is_no_object(text: str, message: str) -> None:
    with pytest.raises(StremnError, match=message):
        parse_object(text)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    frame, _, _ = scene()
    path = tmp_path_factory.mktemp("clip") / "clip.mp4"
    write_video(path, [np.roll(frame, 2 * i, axis=1) for i in range(4)], 25)
    return path


def test_objects_of_several_frames(clip: Path) -> None:
    with open_frames(clip) as frames:
        texts = ["id=3 box=60,80,100,80", "id=5 box=170,70,100,80 at=2"]
        mask_of = masks_for(frames, objects=texts, find=grab_cut)
        masks = [mask_of(frame) for frame in frames]
    assert [mask is None for mask in masks] == [False, True, False, True]
    assert isinstance(masks[0], LabelMap)
    assert masks[0].ids == (3,)
    assert callable(masks[2])
    later = masks[2](masks[0].labels)
    assert later is not None
    assert later.ids == (5,)


@pytest.mark.parametrize(
    ("objects", "message"),
    [
        (["on=5,5 at=9s"], "at 9s is after the end of .* its 4 frames are 0 to 3, 0.16 seconds"),
        (["on=110,120", "on=110,120"], "Object 1 is given twice in frame 0"),
        (["on=110,120", "on=110,120 at=99"], "names frame 99, but the video has 4 frames"),
        (["off=5,5"], "Object 1 is not in frame 0 yet"),
        (["on=110,120", "id=2 off=5,5 at=2"], "Object 2 is not in frame 2 yet"),
        (["on=110,120", "on=999,5 at=2"], "click 999,5 is outside the frame of 320x240"),
        (["box=60,80,100,80", "id=2 on=110,120"], r"lies on object 1 already.*id=1 .*off=110,120"),
    ],
)
def test_objects_that_do_not_fit_the_video(clip: Path, objects: list[str], message: str) -> None:
    with open_frames(clip) as frames, pytest.raises(StremnError, match=message):
        masks_for(frames, objects=objects, find=grab_cut)


def whole_box(frame: Picture, **given: Any) -> np.ndarray:
    """A finder that takes a box for the object."""
    found = np.zeros(frame.shape[:2], bool)
    x, y, width, height = (int(value) for value in given["box"])
    found[y : y + height, x : x + width] = True
    return without_others(found, given.get("others"))


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_a_box_inside_another_is_the_object_in_front(order: tuple[int, int]) -> None:
    man = ObjectPrompt(1, Box(10, 10, 40, 60), (), 0)
    ball = ObjectPrompt(2, Box(20, 30, 10, 10), (), 0)
    frame = np.zeros((80, 80, 3), np.uint8)
    together = find_objects(frame, [(man, ball)[i] for i in order], None, whole_box)
    one_by_one = find_objects(frame, [ball], find_objects(frame, [man], None, whole_box), whole_box)
    for found in (together, one_by_one):
        assert (found.labels == 2).sum() == 10 * 10
        assert (found.labels == 1).sum() == 40 * 60 - 10 * 10


def test_points_before_a_box_keep_their_turn() -> None:
    def find(frame: Picture, **given: Any) -> np.ndarray:
        return whole_box(frame, **given | {"box": given.get("box") or (20, 30, 10, 10)})

    ball = ObjectPrompt(2, None, (Click(25, 35, True),), 0)
    man = ObjectPrompt(1, Box(10, 10, 40, 60), (), 0)
    frame = np.zeros((80, 80, 3), np.uint8)
    found = find_objects(frame, [ball, man], None, find)
    assert (found.labels == 2).sum() == 10 * 10
    assert (found.labels == 1).sum() == 40 * 60 - 10 * 10
    with pytest.raises(StremnError, match="lies on object 1 already"):
        find_objects(frame, [man, ball], None, find)


def test_a_box_that_is_partly_free_gets_only_what_is_free() -> None:
    frame = np.zeros((80, 80, 3), np.uint8)
    known = find_objects(frame, [ObjectPrompt(1, Box(10, 10, 40, 60), (), 0)], None, whole_box)
    found = find_objects(frame, [ObjectPrompt(2, Box(40, 10, 20, 60), (), 0)], known, whole_box)
    assert (found.labels == 1).sum() == 40 * 60
    assert (found.labels == 2).sum() == 10 * 60


def test_a_box_without_an_object_is_refused_beside_others_too() -> None:
    def nothing(frame: Picture, **given: Any) -> np.ndarray:
        return without_others(np.zeros(frame.shape[:2], bool), given.get("others"))

    frame = np.zeros((80, 80, 3), np.uint8)
    known = find_objects(frame, [ObjectPrompt(1, Box(10, 10, 40, 60), (), 0)], None, whole_box)
    prompts = [ObjectPrompt(i, Box(20, 30, 9, 9 + i), (), 0) for i in (2, 3)]
    for begun in (None, known):
        with pytest.raises(StremnError, match=r"^No object was found"):
            find_objects(frame, prompts[:1], begun, nothing)
        with pytest.raises(StremnError, match=r"^Object 2: No object was found"):
            find_objects(frame, prompts, begun, nothing)


def test_points_of_a_later_frame_correct_what_was_segmented(
    clip: Path, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[dict[str, Any]] = []

    def find(frame: Picture, **given: Any) -> np.ndarray:
        seen.append(given)
        if len(seen) == 3:
            raise StremnError("No object was found.")
        return np.ones(frame.shape[:2], bool) & ~given["others"]

    texts = ["id=3 on=110,120", "id=3 off=9,9 at=2", "id=3 on=20,20 at=3"]
    with open_frames(clip) as frames:
        mask_of = masks_for(frames, objects=texts, find=find)
        given = [mask_of(frame) for frame in frames]
    assert isinstance(given[0], LabelMap)
    assert given[1] is None
    segmented = np.zeros((HEIGHT, WIDTH), np.uint8)
    segmented[:20], segmented[-20:] = 3, 7
    assert callable(given[2])
    corrected = given[2](segmented)
    np.testing.assert_array_equal(seen[1]["previous"], segmented == 3)
    np.testing.assert_array_equal(seen[1]["others"], segmented == 7)
    assert corrected is not None
    assert corrected.ids == (3,)
    assert callable(given[3])
    assert given[3](segmented) is None
    assert "Object 3 stays as it was in frame 3: No object was found." in caplog.text


def test_a_rough_mask_is_drawn_along_the_outline(find: LearnedFinder) -> None:
    frame, orange, green = scene()
    kernel = np.ones((15, 15), np.uint8)
    for change, truth in ((cv2.dilate, orange), (cv2.erode, green)):
        rough = change(truth.astype(np.uint8), kernel) > 0
        assert iou(find(frame, previous=rough), truth) > iou(rough, truth) + 0.1


def test_a_mask_from_a_box_is_corrected_and_refined_on_the_command_line(
    clip: Path, tmp_path: Path
) -> None:
    _, orange, green = scene()

    def run(*arguments: object) -> np.ndarray:
        texts = ["check-mask", *map(str, arguments), "--frame", str(clip), "--device", "cpu"]
        result = CliRunner().invoke(app, [*texts, "-o", str(tmp_path / "m.png")])
        assert result.exit_code == 0, result.output
        assert "1 object" in result.stdout
        with Image.open(tmp_path / "m.png") as mask:
            return np.asarray(mask)

    assert iou(run("--box", "60,80,100,80") == 1, orange) > 0.85
    Image.fromarray((3 * (orange | green)).astype(np.uint8)).save(tmp_path / "both.png")
    less = run(tmp_path / "both.png", "--object", "id=3 off=110,120")
    assert less[120, 110] == 0
    assert ((less == 3) & green).sum() > 0.5 * green.sum()
    wide = cv2.dilate(orange.astype(np.uint8), np.ones((15, 15), np.uint8))
    Image.fromarray(4 * wide).save(tmp_path / "wide.png")
    assert iou(run(tmp_path / "wide.png", "--refine") == 4, orange) > 0.85


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Give a mask image, or say what to find"),
        (["--click", "5,5"], "need the picture: give --frame"),
        (["--refine", "--box", "60,80,100,80", "--frame", "CLIP"], "--refine needs a mask"),
        (["--exclude", "5,5", "--frame", "CLIP"], "--exclude goes with"),
        (["--click", "5,5", "--object", "id=2 on=9,9 at=2", "--frame", "CLIP"], "same at="),
        (["--box", "400,5,20,20", "--frame", "CLIP"], "no part inside the frame"),
        (["--box", "4,5,2,2", "--frame", "CLIP"], "too small: 2x2 pixels"),
        (["--click", "400,5", "--frame", "CLIP"], "outside the frame of 320x240"),
        (["--click", "9,5", "--exclude", "9,5", "--frame", "CLIP"], "on the object and off it"),
    ],
)
def test_a_refused_prompt_leaves_the_mask_that_is_there(
    clip: Path, tmp_path: Path, arguments: list[str], message: str
) -> None:
    out = tmp_path / "mask.png"
    out.write_bytes(b"earlier")
    texts = [str(clip) if text == "CLIP" else text for text in arguments]
    result = CliRunner().invoke(app, ["check-mask", *texts, "-o", str(out)])
    assert isinstance(result.exception, StremnError)
    assert message in str(result.exception)
    assert out.read_bytes() == b"earlier"


def test_a_preview_from_the_command_line(clip: Path, tmp_path: Path) -> None:
    arguments = [
        "segment", str(clip), "--object", "id=7 box=60,80,100,80 on=110,120",
        "--object", "id=9 on=220,110", "--limit", "1", "--size", "128", "--device", "cpu",
        "-o", str(tmp_path / "out"),
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert result.exit_code == 0
    with Image.open(tmp_path / "out" / "preview.png") as preview:
        assert preview.size == (WIDTH, HEIGHT)
    with Image.open(tmp_path / "out" / "masks" / "00000.png") as mask:
        saved = np.asarray(mask)
    _, orange, green = scene()
    assert iou(saved == 7, orange) > 0.85
    assert ((saved == 9) & green).sum() > 0.8 * green.sum()


def test_a_click_in_the_middle_of_a_video_corrects_the_mask_there(
    clip: Path, tmp_path: Path
) -> None:
    _, orange, green = scene()
    Image.fromarray(7 * (orange | green).astype(np.uint8)).save(tmp_path / "both.png")
    arguments = [
        "segment", str(clip), "--mask", str(tmp_path / "both.png"), "--size", "128",
        "--object", "id=7 off=114,120 at=2", "--prompt-model", "grabcut", "--device", "cpu",
        "-o", str(tmp_path / "out"),
    ]  # fmt: skip
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    shares = []
    for index in (1, 2):
        with Image.open(tmp_path / "out" / "masks" / f"{index:05d}.png") as mask:
            found = np.asarray(mask) == 7
        shares.append([found[np.roll(part, 2 * index, axis=1)].mean() for part in (orange, green)])
    assert min(shares[0]) > 0.8
    assert shares[1][0] < 0.5 * shares[0][0]
    assert shares[1][1] > 0.8


# ---------------------------------------------------------------- scores and training


def test_clicks_to_a_threshold() -> None:
    scores = PromptScores("x", 0.9, 0.8, (0.5, 0.86, 0.84, 0.91))
    assert scores.clicks_to(0.85) == 2
    assert scores.clicks_to(0.9) == 4
    assert scores.clicks_to(0.95) == 4
    assert scores.values()["3 clicks"] == 0.84
    assert iou(np.zeros((2, 2), bool), np.zeros((2, 2), bool)) == 1.0


def make_stills(root: Path) -> None:
    frame, orange, green = scene()
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for name in ("a", "b", "c"):
        Image.fromarray(np.roll(frame, ord(name), axis=1)).save(root / "images" / f"{name}.png")
        ids = np.roll((orange + 2 * green).astype(np.uint8), ord(name), axis=1)
        Image.fromarray(ids).save(root / "masks" / f"{name}.png")


def test_scores_from_the_command_line(tmp_path: Path) -> None:
    make_stills(tmp_path / "stills")
    (tmp_path / "names.txt").write_text("b\n", encoding="utf-8")
    arguments = [
        "evaluate", "prompts", "--root", str(tmp_path / "stills"), "--layout", "folder",
        "--names", str(tmp_path / "names.txt"), "--clicks", "2", "--device", "cpu",
        "-o", str(tmp_path / "out"),
    ]  # fmt: skip
    result = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert "NoC@85%" in result.stdout
    saved = json.loads((tmp_path / "out" / "prompts.json").read_text(encoding="utf-8"))
    assert [row["name"] for row in saved["objects"]] == ["b/1", "b/2"]
    assert saved["summary"]["box"][0] > 0.6


def test_samples_and_prompts_are_those_of_their_number(tmp_path: Path) -> None:
    make_stills(tmp_path)
    sets = open_pictures(
        PromptRecipe.model_validate(
            {
                "prompts": {},
                "stills": {"made": {"path": str(tmp_path), "kind": "instances"}},
                "train": {"steps": 1, "lr": 1e-3},
            }
        ),
        tmp_path / "recipe.toml",
    )
    samples = PromptSamples(list(sets.values()), [1.0], 8, side=64, seed=5)
    for index in range(8):
        frame, codes = samples[index]
        again = samples[index]
        np.testing.assert_array_equal(frame, again[0])
        np.testing.assert_array_equal(codes, again[1])
        assert frame.shape == (64, 64, 3)
        assert 0.002 < (codes == 1).mean() < 0.85
        prompt = first_prompt(np.random.default_rng(index), codes == 1, None)
        assert prompt.clicks or prompt.box is not None or prompt.previous is not None
    batch = collate([samples[index] for index in range(2)])
    report = PromptLoss(rounds=1)(build_prompt_network(PRESETS["small"]), batch, 0.0)
    assert torch.isfinite(report.loss)
    report.loss.backward()


def test_a_training_by_a_recipe(tmp_path: Path) -> None:
    make_stills(tmp_path / "stills")
    (tmp_path / "held.txt").write_text("c\n", encoding="utf-8")
    text = f"""
[prompts]
batch = 2
side = 64
held_out = "held.txt"
[stills.made]
path = "{tmp_path / "stills"}"
kind = "instances"
[train]
steps = 2
lr = 1e-4
"""
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    said = train(tmp_path / "recipe.toml", [], None, resume=False, dry_run=True)
    assert "2 steps of 2 pictures of 64 px" in said
    assert "made 2" in said
    train(
        tmp_path / "recipe.toml",
        ["train.device=cpu"],
        tmp_path / "out",
        resume=False,
        dry_run=False,
    )
    trained = load_prompt_network(tmp_path / "out" / "last.safetensors")
    assert next(trained.parameters()).device.type == "cpu"
    (tmp_path / "held.txt").unlink()
    with pytest.raises(StremnError, match=r"held_out.* cannot be read"):
        train(tmp_path / "recipe.toml", [], tmp_path / "b", resume=False, dry_run=False)


def test_the_recipe_of_the_shipped_weights_is_read() -> None:
    path = Path(__file__).parents[2] / "recipes" / "prompt-small.toml"
    recipe = TASK.read(path)
    assert task_of(path) is TASK
    assert recipe.prompts.held_out == "prompt-held-out.txt"
    names = (path.parent / recipe.prompts.held_out).read_text(encoding="utf-8").split()
    assert len(set(names)) == 200
