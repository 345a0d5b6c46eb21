"""One visitor's work: objects, runs that are paused and gone on with, undo of all of it."""

import copy
import csv
import io
import itertools
import json
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from moving_disc import BOX, FRAMES, HEIGHT, WIDTH, disc, overlap, picture, tools, write_clip
from stremn.errors import StremnError
from stremn.media.formats.mattes import soft_edge
from stremn.media.frame_results import FrameResult
from stremn.media.frames import Frame, FrameSource
from stremn.media.given import GivenMasks
from stremn.media.masks import LabelMap, label_map, read_mask
from stremn.media.results import ResultWriter
from stremn.media.video import open_frames
from stremn.networks.pretrained import Pretrained
from stremn.segmentation.both_ways import BothWays, follow_backward
from stremn.segmentation.pass_store import PassStore
from stremn.segmentation.reports import StepResult
from stremn.web import following, takes
from stremn.web.downloads import FORMATS
from stremn.web.following import Run, together
from stremn.web.options import Options
from stremn.web.project import Project
from stremn.web.shelf import FrameShelf
from stremn.web.takes import MOST_STATES, SavedStates, Take, Way

OPTIONS = Options(size=64, memory_slots=3)


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.mp4")


@pytest.fixture
def project(clip: Path, tmp_path: Path) -> Iterator[Project]:
    project = Project(clip, tmp_path, tools(), most=1000)
    yield project
    project.close()


@pytest.fixture(autouse=True)
def states_are_saved_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets short clips do."""
    monkeypatch.setattr(following, "STATE_EVERY", 4)


def ended(project: Project, stage: str = "done") -> None:
    """Wait until a run has ended, and see how."""
    for _ in range(6000):  # a loaded machine takes its time
        if not project.status.running:
            break
        time.sleep(0.05)
    assert project.status.stage == stage, project.status


def all_labels(project: Project) -> list[np.ndarray]:
    return [project.labels(index) for index in range(FRAMES)]


@pytest.fixture
def pausing(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the next run pause after a frame, exactly."""

    def after(index: int) -> None:
        step = following.Run._step

        def stepping(run: Run, take: Take, session: object, frame: Frame) -> None:
            step(run, take, session, frame)
            if frame.index == index:
                run.pause()
                monkeypatch.setattr(following.Run, "_step", step)

        monkeypatch.setattr(following.Run, "_step", stepping)

    return after


# ---------------------------------------------------------------- frames


def test_any_frame_is_at_hand(clip: Path, tmp_path: Path) -> None:
    shelf = FrameShelf(clip, tmp_path / "frames", most=1000)
    assert (shelf.count, shelf.size, shelf.fps) == (FRAMES, (HEIGHT, WIDTH), 25)
    true = [frame.image for frame in open_frames(clip)]
    for index in (7, 3, 13, 0):
        difference = np.abs(shelf.picture(index).astype(int) - true[index])
        assert difference.mean() < 6, "the same frame, but for JPEG"
    for index in (14, 10**9):
        with pytest.raises(StremnError, match=f"The video has no frame {index}; it has 14"):
            shelf.path(index)
    shelf.close()


def test_a_video_that_does_not_say_how_long_it_is(tmp_path: Path) -> None:
    from PIL import Image

    pictures = [Image.fromarray(picture(index)) for index in range(4)]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:])
    shelf = FrameShelf(tmp_path / "a.gif", tmp_path / "frames", most=1000)
    assert shelf.count == 4
    shelf.close()
    short = FrameShelf(tmp_path / "a.gif", tmp_path / "other", most=2)
    assert short.count == 2
    short.close()


@pytest.mark.parametrize(("declared", "of"), [(FRAMES, " of its 14"), (None, "")])
def test_a_video_that_is_cut_is_told(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, declared: int | None, of: str
) -> None:
    def opened(video: Path) -> FrameSource:
        source = open_frames(video)
        source.count = declared
        return source

    monkeypatch.setattr("stremn.web.shelf.open_frames", opened)
    for most, words in [(5, f"cut after 5{of} frames"), (FRAMES, ""), (1000, "")]:
        shelf = FrameShelf(clip, tmp_path / f"{most}", most)
        assert words in shelf.notice
        assert bool(shelf.notice) == bool(words)
        shelf.path(shelf.count - 1)
        assert not (tmp_path / f"{most}" / f"{most}.jpg").exists(), "no frame more is kept"
        shelf.close()
    shelf = FrameShelf(clip, tmp_path / "frames", most=5)
    shelf.count = 3  # a run found that the video ends there
    assert shelf.notice == ""
    shelf.close()


# ---------------------------------------------------------------- runs


def test_a_whole_run(project: Project) -> None:
    with pytest.raises(StremnError, match="Mark an object first"):
        project.follow(OPTIONS)
    project.mark(0, 1, BOX)
    assert overlap(project.labels(0) == 1, disc(0)) > 0.9
    project.follow(OPTIONS)
    ended(project)
    assert project.work.followed() == [(0, FRAMES)]
    assert (project.status.done, project.status.total) == (FRAMES, FRAMES)
    assert project.status.memory > 0
    row = project.work.row(FRAMES - 1)
    assert row["objects"]["1"]["slots"][0] == 0
    assert row["objects"]["1"]["pinned"] == [True, False, False]
    with pytest.raises(StremnError, match="All frames are followed"):
        project.follow(OPTIONS)
    folder = project.work.takes[0].folder
    project.undo()
    assert folder.exists()
    project.add_object()
    assert not folder.exists(), "neither undo nor redo comes to it"


def test_a_pause_changes_nothing_in_what_comes_out(
    project: Project, pausing: Callable[[int], None]
) -> None:
    project.mark(0, 1, BOX)
    project.follow(OPTIONS)
    ended(project)
    whole = all_labels(project)
    project.undo()
    assert project.work.followed() == []
    pausing(6)
    project.follow(OPTIONS)
    ended(project, "paused")
    assert project.work.followed() == [(0, 7)]
    project.follow(OPTIONS)
    ended(project)
    assert project.work.takes[-1].start == 7
    np.testing.assert_array_equal(all_labels(project), whole)


CORNER = {"kind": "stroke", "points": [[5, 5], [30, 5]], "radius": 4, "on": True, "snap": False}
"""A correction that no network would find."""


def test_a_correction_goes_on_from_a_saved_session_not_from_the_start(project: Project) -> None:
    forward = OPTIONS.model_copy(update={"both": False})
    project.mark(0, 1, BOX)
    project.follow(forward)
    ended(project)
    before = all_labels(project)
    project.mark(9, 1, CORNER)
    project.follow(forward)
    ended(project)
    take = project.work.takes[-1]
    assert take.start == 8
    assert sorted(take.rows) == list(range(take.start, FRAMES))
    after = all_labels(project)
    np.testing.assert_array_equal(after[:9], before[:9])
    assert (after[9][3:8, 5:30] == 1).all()
    assert any((a != b).any() for a, b in zip(after[9:], before[9:], strict=True))
    project.undo()
    project.undo()
    np.testing.assert_array_equal(all_labels(project), before)
    project.redo()
    project.redo()
    np.testing.assert_array_equal(all_labels(project), after)


def test_other_settings_begin_anew_and_an_earlier_end_is_kept(project: Project) -> None:
    project.mark(0, 1, BOX)
    project.follow(Options(size=64, memory_slots=3, end=6))
    ended(project)
    assert project.work.followed() == [(0, 6)]
    project.follow(OPTIONS)
    ended(project)
    assert project.work.takes[-1].start == 6
    project.follow(Options(size=64, memory_slots=2))
    ended(project)
    assert project.work.takes[-1].start == 0


def test_an_object_is_given_in_a_later_frame_and_removed(project: Project) -> None:
    project.mark(4, 1, BOX)
    assert project.add_object("  the\n disc ") == 2
    assert project.work.objects == {1: "Object 1", 2: "the disc"}
    square = {"kind": "stroke", "points": [[100, 80], [110, 80]], "radius": 6, "on": True}
    project.mark(4, 2, square | {"snap": False})
    project.follow(OPTIONS)
    ended(project)
    assert project.work.followed() == [(0, FRAMES)], "both ways"
    assert set(np.unique(project.labels(4))) == {0, 1, 2}
    project.remove_object(2)
    assert set(np.unique(project.labels(4))) == {0, 1}
    project.mark(11, 1, BOX | {"x": 36})
    project.follow(OPTIONS)
    ended(project)
    assert [(take.way, take.start) for take in project.work.takes[-2:]] == [
        (Way(4, 1), 4),
        (Way(11, -1), 0),
    ], "what was removed is no reason to begin anew"
    assert list(project.work.row(13)["objects"]) == ["1"]
    project.undo()
    project.undo()
    project.undo()
    assert set(np.unique(project.labels(4))) == {0, 1, 2}


def test_a_new_object_gets_no_masks_of_a_removed_one(project: Project) -> None:
    square = {"kind": "stroke", "points": [[100, 80], [110, 80]], "radius": 6, "on": True}
    project.mark(0, 1, BOX)
    removed = project.add_object()
    project.mark(0, removed, square | {"snap": False})
    project.remove_object(removed)
    drawn = project.add_object()
    assert not (project.labels(0) == drawn).any(), "none that was drawn"
    project.mark(0, drawn, square | {"snap": False})
    project.follow(OPTIONS)
    ended(project)
    project.clear(0)
    project.remove_object(drawn)
    new = project.add_object()
    assert not any((labels == new).any() for labels in all_labels(project)), "none of a run"
    assert list(project.work.given()) == []


def test_a_removed_object_is_not_in_the_way_of_others(project: Project) -> None:
    other = project.add_object()
    project.mark(0, 1, BOX)
    project.remove_object(1)
    project.mark(0, other, {"kind": "click", "x": 50, "y": 48, "on": True})
    assert overlap(project.labels(0) == other, disc(0)) > 0.8
    project.undo()
    project.undo()
    assert overlap(project.labels(0) == 1, disc(0)) > 0.9, "undo brings it back"


def test_both_ways_from_the_frame_that_is_marked(project: Project) -> None:
    project.mark(6, 1, BOX | {"x": 31})
    project.follow(OPTIONS)
    ended(project)
    assert project.work.followed() == [(0, FRAMES)]
    assert [take.way for take in project.work.takes] == [Way(6, 1), Way(6, -1)]
    assert project.status.done == FRAMES + 1, "the marked frame is begun with twice"
    held = project.work.row(1)["objects"]["1"]["slots"]
    assert min(held) == 2, "every second frame is memorized, counted from the marked one"
    assert max(held) == 6, "frames have the video's numbers"
    project.mark(1, 1, CORNER)
    project.follow(OPTIONS)
    ended(project)
    assert [take.way for take in project.work.takes[2:]] == [Way(1, 1), Way(6, -1)]
    assert project.work.takes[-1].start == 4, "backward, it goes on from a saved session"
    assert (project.labels(1)[3:8, 5:30] == 1).all()
    with pytest.raises(StremnError, match="All frames are followed"):
        project.follow(OPTIONS)
    with pytest.raises(StremnError, match="Only frames before 1 are followed, and no object"):
        project.follow(Options(size=64, memory_slots=3, end=1))


def two_marks(project: Project) -> None:
    """Follow the disc, marked in the frames 2 and 9, and another object, marked in frame 9."""
    project.mark(2, 1, BOX | {"x": 27})
    project.mark(9, 1, BOX | {"x": 34})
    assert project.add_object() == 2
    project.mark(9, 2, CORNER | {"points": [[100, 80], [115, 80]], "radius": 8})
    project.follow(OPTIONS)
    ended(project)


def as_on_the_command_line(project: Project, folder: Path) -> list[StepResult]:
    """What `segment --both-ways` finds with the masks that are given on the page."""
    masks = project.work.given()

    def mask_of(frame: Frame) -> LabelMap | None:
        labels = together(masks.get(frame.index, {}), {1, 2})
        return None if labels is None else label_map(labels)

    given = GivenMasks(tuple(masks), mask_of)
    store = PassStore(folder, {}, resume=False)
    model = project._tools.model()
    frames = open_frames(project.video)
    follow_backward(
        frames, OPTIONS.open(model, "cpu"), given, store, first=0, watch=lambda *_: None
    )
    passing = BothWays(OPTIONS.open(model, "cpu"), given, store, first=0)
    return [passing.step(frame, mask_of(frame)) for frame in frames]


def test_between_two_marks_both_ways_are_joined_as_on_the_command_line(
    project: Project, tmp_path: Path
) -> None:
    two_marks(project)
    assert [take.way for take in project.work.takes] == [Way(2, 1), Way(9, -1)]
    expected = as_on_the_command_line(project, tmp_path / "store")
    forward, backward = project.work.takes
    apart = 0
    for index, labels in enumerate(all_labels(project)):
        wanted = expected[index].labels
        least, most = np.sort(expected[index].probabilities, axis=0)
        sure = np.abs(most - least) > 0.02  # the page keeps steps of 1/255
        assert ((labels > 0) == (wanted > 0)).mean() > 0.998, index
        assert (labels == wanted)[sure | (wanted == 0)].mean() > 0.99, index
        for take in (forward, backward):
            if take.holds(index):
                apart += int((labels != take.labels(index)).sum())
    assert apart > 50, "neither way alone is the result"
    for index in (2, 9):
        assert overlap(project.labels(index) == 1, forward.labels(index) == 1) > 0.98
    assert project.work.row(5) == forward.rows[5]
    assert project.work.row(1) == backward.rows[1]


def test_what_a_pause_leaves_is_one_way_alone_until_it_goes_on(
    project: Project, pausing: Callable[[int], None]
) -> None:
    project.mark(0, 1, BOX)
    project.follow(OPTIONS)
    ended(project)
    project.mark(9, 1, CORNER)
    pausing(4)
    project.follow(OPTIONS)  # forward from frame 8, then backward from frame 9
    ended(project, "paused")
    paused = all_labels(project)
    first, forward, backward = project.work.takes
    assert (forward.start, backward.way) == (8, Way(9, -1))
    assert sorted(backward.rows) == list(range(4, 10))
    for index in range(4):
        np.testing.assert_array_equal(paused[index], first.labels(index))
    project.follow(OPTIONS)
    ended(project)
    np.testing.assert_array_equal(all_labels(project)[4:], paused[4:])
    project.follow(Options(size=80, memory_slots=3, both=False))
    ended(project)
    for index, labels in enumerate(all_labels(project)):
        np.testing.assert_array_equal(labels, project.work.takes[-1].labels(index))


def test_a_mark_while_it_runs_pauses_the_run(project: Project) -> None:
    project.mark(0, 1, BOX)
    project.follow(OPTIONS)
    project.mark(10, 1, BOX | {"x": 35})
    assert not project.status.running
    project.follow(OPTIONS)
    ended(project)
    assert project.work.followed() == [(0, FRAMES)]


def test_one_run_at_a_time_and_a_waiting_one_can_be_paused(project: Project) -> None:
    project.mark(0, 1, BOX)
    with project._tools.turn:
        project.follow(OPTIONS)
        time.sleep(0.2)
        assert project.status.stage == "waiting"
        project.pause()
        ended(project, "paused")
    project.follow(OPTIONS)
    ended(project)


def test_a_video_that_breaks_off_keeps_its_frames(tmp_path: Path) -> None:
    broken = write_clip(tmp_path / "broken.mp4", 30)
    content = bytearray(broken.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 400] = bytes(400)
    broken.write_bytes(bytes(content))
    project = Project(broken, tmp_path / "project", tools(), most=1000)
    project.mark(0, 1, BOX)
    project.follow(OPTIONS)
    ended(project, "failed")
    assert "damaged" in project.status.words
    assert 0 < project.work.followed()[0][1] < 30
    assert list(exported(project, "masks")) == ["masks.zip"], "what is sound can be had"
    project.close()


def test_mistakes_change_nothing(project: Project) -> None:
    project.mark(0, 1, BOX)
    version, labels = project.version, project.labels(0)
    for call, words in [
        (lambda: project.mark(0, 9, BOX), "There is no object 9"),
        (lambda: project.mark(99, 1, BOX), "no frame 99"),
        (lambda: project.mark(0, 1, BOX | {"x": 900}), "no part inside"),
        (lambda: project.name_object(1, " \n\0"), "at least one letter"),
        (lambda: project.remove_object(5), "There is no object 5"),
        (lambda: project.follow(Options(policy="none")), "none"),
    ]:
        with pytest.raises(StremnError, match=words):
            call()
    assert project.version == version
    np.testing.assert_array_equal(project.labels(0), labels)
    project.name_object(1, "x" * 500)
    assert project.work.objects[1] == "x" * 60


def test_a_mask_file_names_its_objects_and_clearing_takes_it_back(project: Project) -> None:
    labels = disc(0).astype(np.uint8) * 7
    project.use_mask(0, read_mask(labels))
    assert project.work.objects == {7: "Object 7"}
    np.testing.assert_array_equal(project.labels(0), labels)
    project.clear(0)
    assert not project.labels(0).any()
    project.undo()
    np.testing.assert_array_equal(project.labels(0), labels)


def test_saved_sessions_are_thinned_out(tmp_path: Path) -> None:
    states = SavedStates(tmp_path / "states")
    way = Way(0, 1)
    settings = OPTIONS.settings()
    take = Take(tmp_path / "take", way, 0, settings, {})
    for after in range(500):
        states.save(take, after, lambda path: path.write_bytes(b"x"))
    kept = [state.after for state in states.kept]
    assert len(kept) == MOST_STATES
    assert kept[-4:] == list(range(496, 500))
    assert kept[0] == 0
    assert max(b - a for a, b in itertools.pairwise(kept)) < 100
    assert len(list((tmp_path / "states").iterdir())) == len(kept)
    best = states.best(way, 300, settings, {}, {1})
    assert best is not None
    assert 200 < best.after < 300
    assert states.best(way, 300, replace(settings, memory_slots=4), {}, {1}) is None


def test_the_session_that_the_way_back_continues_from_is_not_thinned_out(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "STATE_EVERY", 1)
    monkeypatch.setattr(takes, "MOST_STATES", 6)
    project.mark(0, 1, BOX)
    project.mark(FRAMES - 1, 1, BOX | {"x": 38})
    project.follow(OPTIONS)
    ended(project)
    project.mark(3, 1, CORNER)
    project.follow(OPTIONS)
    ended(project)
    assert project.work.takes[-1].way == Way(FRAMES - 1, -1)
    assert project.work.takes[-1].start > 0, "it continues from a saved session"
    assert len(project._states.kept) <= 6


def test_a_session_that_cannot_be_resumed_is_removed(project: Project, tmp_path: Path) -> None:
    project.mark(0, 1, BOX)
    project.follow(OPTIONS.model_copy(update={"end": 6}))
    ended(project)
    project._states.kept[-1].path.write_bytes(b"damaged")
    project.follow(OPTIONS)
    ended(project, "failed")
    assert "The session saved after frame 5 cannot be resumed" in project.status.words
    assert str(tmp_path) not in project.status.words
    project.follow(OPTIONS)
    ended(project)
    assert project.work.takes[-1].start == 4, "an earlier session is sound"
    assert project.work.followed() == [(0, FRAMES)]


# ---------------------------------------------------------------- adapting


@pytest.fixture
def adaptations(monkeypatch: pytest.MonkeyPatch) -> list[np.ndarray]:
    """The label maps that the network was adapted to; each time it gets other weights."""
    labels_of: list[np.ndarray] = []

    def adapt(
        pretrained: Pretrained,
        frame: np.ndarray,
        labels: np.ndarray,
        *,
        device: str,
        watch: Callable[[int, int], None],
    ) -> Pretrained:
        labels_of.append(labels)
        watch(0, 1)
        model = copy.deepcopy(pretrained.model)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.mul_(1 + 1e-4 * len(labels_of))
        return Pretrained(model, pretrained.config)

    monkeypatch.setattr("stremn.training.segmentation.adaptation.adapt", adapt)
    return labels_of


ADAPTED = OPTIONS.model_copy(update={"adapt": True})


def mark_two_objects(project: Project) -> None:
    """Mark the disc and another object in frame 0."""
    project.mark(0, 1, BOX)
    assert project.add_object() == 2
    project.mark(0, 2, CORNER)


def test_a_run_goes_on_with_the_same_weights_when_an_object_is_removed(
    project: Project, pausing: Callable[[int], None], adaptations: list[np.ndarray]
) -> None:
    mark_two_objects(project)
    pausing(6)
    project.follow(ADAPTED)
    ended(project, "paused")
    project.remove_object(2)
    project.follow(ADAPTED)
    ended(project)
    assert project.work.takes[-1].start == 7
    assert len(adaptations) == 1
    project.undo()
    project.undo()
    project.follow(ADAPTED)
    ended(project)
    assert project.work.takes[-1].start == 7
    assert len(adaptations) == 1, "with the object again, too"


def test_a_removed_object_that_comes_back_is_adapted_to(
    project: Project, adaptations: list[np.ndarray]
) -> None:
    mark_two_objects(project)
    project.remove_object(2)
    project.follow(ADAPTED)
    ended(project)
    project.undo()
    project.undo()
    project.follow(ADAPTED)
    ended(project)
    assert [set(np.unique(labels)) for labels in adaptations] == [{0, 1}, {0, 1, 2}]


@pytest.mark.parametrize("frame", [2, 1])
def test_no_run_goes_on_from_a_session_of_other_weights(
    project: Project, adaptations: list[np.ndarray], frame: int
) -> None:
    project.mark(2, 1, BOX | {"x": 27})
    project.mark(9, 1, BOX | {"x": 34})
    project.follow(ADAPTED)
    ended(project)
    project.mark(frame, 1, CORNER)  # the way back from frame 9 meets it only at its end
    project.follow(ADAPTED)
    ended(project)
    assert [(take.way, take.start) for take in project.work.takes[2:]] == [
        (Way(frame, 1), 0),
        (Way(9, -1), 0),
    ]
    assert len(adaptations) == 2
    project.undo()
    project.undo()
    with pytest.raises(StremnError, match="All frames are followed"):
        project.follow(ADAPTED)
    project.mark(12, 1, CORNER)
    project.follow(ADAPTED)
    ended(project)
    assert len(adaptations) == 3, "only the latest weights are kept"
    assert [take.start for take in project.work.takes[2:]] == [0, 0], "nor are their sessions"
    project.mark(12, 1, CORNER | {"radius": 6})
    project.follow(ADAPTED)
    ended(project)
    assert len(adaptations) == 3
    assert project.work.takes[-2].start > 0


def test_runs_with_and_without_adapting_do_not_mix(
    project: Project, adaptations: list[np.ndarray], pausing: Callable[[int], None]
) -> None:
    project.mark(0, 1, BOX)
    pausing(6)
    project.follow(OPTIONS)
    ended(project, "paused")
    project.follow(ADAPTED)
    ended(project)
    assert project.work.takes[-1].start == 0
    project.follow(OPTIONS)
    ended(project)
    assert project.work.takes[-1].start == 0
    assert len(adaptations) == 1


# ---------------------------------------------------------------- downloads


def exported(project: Project, *kinds: str) -> dict[str, Path]:
    """Files of these formats, by their names."""
    project.export(kinds)
    return written(project)


def written(project: Project) -> dict[str, Path]:
    """Wait for the files, and return them by their names."""
    for _ in range(6000):
        if not project.export_status.running:
            break
        time.sleep(0.05)
    assert project.export_status.words == ""
    return {name: project.download(name) for name, _ in project.export_status.files}


def test_soft_edges_and_the_table_come_from_what_both_ways_found(
    project: Project, tmp_path: Path
) -> None:
    two_marks(project)
    expected = as_on_the_command_line(project, tmp_path / "store")[5]
    files = exported(project, "cut-out", "table")
    with zipfile.ZipFile(files["cut-out.zip"]) as archive:
        name = next(name for name in archive.namelist() if "00005" in name)
        alpha = np.asarray(Image.open(io.BytesIO(archive.read(name))))[..., 3]
    assert ((alpha > 0) & (alpha < 255)).any(), "the edge is soft"
    sum_of_all = expected.probabilities.sum(0)
    wanted = soft_edge(expected.labels > 0, sum_of_all)
    assert np.abs(alpha / 255 - wanted).mean() < 0.004
    with files["objects.csv"].open(encoding="utf-8") as table:
        rows = [row for row in csv.DictReader(table) if row["frame"] == "5"]
    found = {int(row["object"]): float(row["confidence"]) for row in rows}
    assert found == pytest.approx(expected.confidences, abs=0.01)
    second = project.labels(5) == 2
    project.remove_object(2)
    with zipfile.ZipFile(exported(project, "cut-out")["cut-out.zip"]) as archive:
        alone = np.asarray(Image.open(io.BytesIO(archive.read(name))))[..., 3]
    assert (alone[second] < 128).all()
    assert (alone > 128).any()


def test_files_are_whole_though_the_run_is_undone_while_they_are_written(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    go_on = threading.Event()
    write = ResultWriter.write

    def writes(writer: ResultWriter, result: FrameResult) -> None:
        assert go_on.wait(60)
        write(writer, result)

    monkeypatch.setattr(ResultWriter, "write", writes)
    project.mark(0, 1, BOX)
    project.follow(OPTIONS)
    ended(project)
    folder = project.work.takes[0].folder
    project.export(["masks"])
    project.undo()
    project.add_object()
    go_on.set()
    assert list(written(project)) == ["masks.zip"]
    project.add_object()
    assert not folder.exists(), "then its masks are removed"


def test_files_in_every_format(project: Project) -> None:
    with pytest.raises(StremnError, match="Nothing has been followed yet"):
        project.export(["masks"])
    with pytest.raises(StremnError, match="Prepare the files first"):
        project.download("masks.zip")
    project.name_object(1, "the disc")
    project.mark(0, 1, BOX)
    project.follow(Options(size=64, memory_slots=3, end=6))
    ended(project)
    for kinds in (["doc"], []):
        with pytest.raises(StremnError, match="Choose one or more of the formats"):
            project.export(kinds)
    installed = [kind for kind in FORMATS if kind != "exr"]
    files = exported(project, *installed)
    assert len(files) == len(installed)
    assert min(path.stat().st_size for path in files.values()) > 0
    assert len(list(open_frames(files["overlay.mp4"]))) == 6
    with zipfile.ZipFile(files["masks.zip"]) as archive:
        assert archive.namelist() == [f"masks/{i:05d}.png" for i in range(6)]
        found = np.asarray(Image.open(io.BytesIO(archive.read("masks/00003.png"))))
    np.testing.assert_array_equal(found, project.labels(3))
    rows = json.loads(files["memory.json"].read_text(encoding="utf-8"))
    assert set(rows[5]["objects"]["1"]) == {"slots", "replaced"}
    coco = json.loads(files["objects.json"].read_text(encoding="utf-8"))
    assert [category["name"] for category in coco["categories"]] == ["the disc"]
    for name in ("../project.py", "results", "masks"):
        with pytest.raises(StremnError, match="There is no such file"):
            project.download(name)
    folder = files["masks.zip"].parent
    exported(project, "mots")
    assert not folder.exists(), "new files take the place of the old ones"
