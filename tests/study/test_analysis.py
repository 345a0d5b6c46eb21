"""Section 4.3: what the slots held, how old it was, and the pictures of it."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import tiny_vos
from stremn.cli.app import app
from stremn.data.readers.folders import distinct
from stremn.data.readers.layouts import read_davis, read_folders
from stremn.errors import MissingExtraError, StremnError
from stremn.evaluation.segmentation.records import read_records
from stremn.evaluation.segmentation.results import FrameScore, SequenceRecord
from stremn.evaluation.segmentation.run_description import RunDescription
from stremn.media.frame_results import FrameResult
from stremn.media.frames import Frame
from stremn.media.results import ResultWriter
from stremn.segmentation.sessions import SegmentationSession
from stremn.study.analysis import Study, analyze_data
from stremn.study.figures import Tile, draw_tiles, drawing, head
from stremn.study.learning_curves import analyze_training, by_hours, panels_of, read_log
from stremn.study.memory_log import (
    MemoryRecorder,
    SlotHistory,
    age_histogram,
    histories_of,
    read_histories,
    read_memory,
    template_ages,
)
from stremn.study.memory_pictures import analyze_memory, binned, draw_retained
from stremn.study.overlay_frames import overlay_frames
from stremn.study.score_pictures import draw_scores, find_failures
from tiny_model import square_clips


def history(held, first=0, scores=None):
    """A history of what each slot held after frames first, first + 1, ...; -1 is empty."""
    held = np.array(held)
    frames = first + np.arange(len(held))
    written = np.array(
        [row.tolist().index(t) if t in row else -1 for t, row in zip(frames, held, strict=True)]
    )
    scores = np.full(held.shape, np.nan) if scores is None else np.array(scores)
    return SlotHistory("clip", 1, frames, held, written, scores)


def simulated(rule, slots, frames, first=0):
    """A history in which `rule(slots held, frame)` names the slot that gives way."""
    held, rows = [-1] * slots, []
    for t in range(first, first + frames):
        held[held.index(-1) if -1 in held else rule(held, t)] = t
        rows.append(list(held))
    return history(rows, first)


def stored(offered, frames, slots=4, given=0):
    """A history of a memory that is offered some frames, and takes all: the oldest gives way."""
    held, rows = [-1] * slots, []
    for t in range(given, given + frames):
        if t in offered:
            held[held.index(-1) if -1 in held else oldest(held, t)] = t
        rows.append(list(held))
    return history(rows, given)


def oldest(held, frame):
    return 1 + int(np.argmin(held[1:]))


def session_of(model, policy="oldest", slots=3):
    options = {"precision": "float32", "memory_slots": slots, "policy": policy, "size": 64}
    return SegmentationSession(model, device="cpu", reach=None, **options)


def rows_of(model, frames=8, policy="oldest", slots=3):
    """Results of a session, and the rows that `memory.json` would hold."""
    clip = square_clips([[0, 0]], frames=frames)
    session = session_of(model, policy, slots)
    results = []
    for t in range(frames):
        mask = clip.labels[0, 0].numpy() if t == 0 else None
        results.append(session.step(clip.frames[0, t].permute(1, 2, 0).numpy(), mask))
    rows = [{"frame": r.frame, "name": str(r.frame), **r.memory.to_json()} for r in results]
    return results, rows


# Histories -----------------------------------------------------------------------------------


def test_a_history_is_what_the_session_reported(model):
    results, rows = rows_of(model, policy="learned")
    first, second = histories_of("clip", rows)
    assert (first.object_id, second.object_id) == (1, 2)
    for t, result in enumerate(results):
        memory = result.memory.objects[0]
        assert tuple(first.held[t]) == tuple(-1 if f is None else f for f in memory.frames)
        assert first.written[t] == memory.replaced.slot
        found = [None if np.isnan(s) else s for s in first.scores[t]]
        assert found == list(memory.replaced.scores)
    assert first.retained() == sorted(results[-1].memory.objects[0].frames)


def test_evictions_are_the_frames_at_which_a_template_gave_way(model):
    _, rows = rows_of(model, frames=7, slots=3)
    [one, _] = histories_of("clip", rows)
    assert one.frames[one.evictions()].tolist() == [3, 4, 5, 6]


def test_frames_that_are_not_stored_evict_nothing():
    held = [[0, -1, -1], [0, 1, -1], [0, 1, 2], [0, 1, 2], [0, 4, 2]]
    assert history(held).evictions().tolist() == [4]


def test_a_growing_memory_has_empty_slots_before_it_grew():
    rows = [
        {"frame": t, "objects": {"1": {"slots": list(range(t + 1)), "replaced": None}}}
        for t in range(3)
    ]
    [grown] = histories_of("clip", rows)
    assert grown.held.tolist() == [[0, -1, -1], [0, 1, -1], [0, 1, 2]]


def test_an_object_given_later_starts_later():
    entry = {"slots": [0], "replaced": None}
    rows = [
        {"frame": 0, "objects": {"3": entry}},
        {"frame": 1, "objects": {"3": entry, "7": {"slots": [1], "replaced": None}}},
    ]
    three, seven = histories_of("clip", rows)
    assert (three.given, seven.given) == (0, 1)


BOTH_WAYS = [  # object 1 is given in frame 2, object 2 in frame 4, and the run goes back to frame 0
    {"1": [2, 1, 0], "2": [4, 1, 0]},
    {"1": [2, 1, None], "2": [4, 3, 1]},
    {"1": [2, None, None]},
    {"1": [2, 3, None]},
    {"1": [2, 3, 4], "2": [4, None, None]},
    {"1": [2, 5, 4], "2": [4, 5, None]},
    {"1": [2, 5, 6], "2": [4, 5, 6]},
]


def write_memory(folder, slots, first=0):
    """Write a `memory.json` with what the slots of each object held in each frame."""
    folder.mkdir(exist_ok=True)
    rows = [
        {"frame": t, "objects": {i: {"slots": s, "replaced": None} for i, s in objects.items()}}
        for t, objects in enumerate(slots, first)
    ]
    (folder / "memory.json").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    return folder


def test_a_history_begins_with_the_given_frame_of_the_forward_pass(tmp_path):
    one, two = read_histories(write_memory(tmp_path / "run", BOTH_WAYS))
    assert (one.given, one.frames.tolist(), one.backward) == (2, [2, 3, 4, 5, 6], 2)
    assert (two.given, two.frames.tolist(), two.backward) == (4, [4, 5, 6], 2)
    assert one.held[0].tolist() == [2, -1, -1]
    assert all(age > 0 for h in (one, two) for ages in template_ages(h) for age in ages)


def test_what_a_backward_pass_held_is_said_to_be_left_out(tmp_path, monkeypatch):
    told = []
    monkeypatch.setattr(
        "stremn.study.time_line.head", lambda figure, title, text: told.append(text)
    )
    drawn = analyze_memory([write_memory(tmp_path / "run", BOTH_WAYS)], tmp_path)
    assert drawn[-1].name == "ages.png"
    assert "begins at frame 2, in which the object is given" in told[0]
    assert "before it were segmented backward" in told[0]
    analyze_memory([write_memory(tmp_path / "run", BOTH_WAYS[2:], first=2)], tmp_path)
    assert "backward" not in told[2]


def test_a_run_that_stopped_in_its_backward_part_has_nothing_to_draw(tmp_path):
    with pytest.raises(StremnError, match=r"no frame of the forward pass.* with --resume\."):
        read_histories(write_memory(tmp_path / "run", BOTH_WAYS[:2]))


def test_files_and_folders_are_read(model, tmp_path):
    _, rows = rows_of(model, frames=4)
    folder = tmp_path / "bear"
    folder.mkdir()
    (folder / "memory.json").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    by_folder, by_file = read_histories(folder), read_histories(folder / "memory.json")
    assert by_folder[0].video == by_file[0].video == "bear"
    assert np.array_equal(by_folder[1].held, by_file[1].held)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "There is no .*memory.json. Give the output folder"),
        ("[\n]\n", "holds no object"),
        ('[\n{"frame": 0}\n]\n', "is not a record of a memory .KeyError"),
        ("scores\n", "cannot be read as JSON rows"),
    ],
)
def test_what_is_no_record_is_said_so(tmp_path, content, message):
    if content is not None:
        (tmp_path / "memory.json").write_text(content)
    with pytest.raises(StremnError, match=message):
        read_histories(tmp_path)


# Section 4.3 ---------------------------------------------------------------------------------


def test_ages_of_the_papers_example():
    """Query frame 68 of Fig 6 meets frames 0 (given), 17, 18, 29, 32 and 67 (previous)."""
    held = np.full((69, 6), -1)
    held[:, 0] = 0
    held[67] = [0, 17, 18, 29, 32, 67]
    ages = template_ages(history(held))
    assert sorted(ages[67]) == [68 - 32, 68 - 29, 68 - 18, 68 - 17]


def test_ages_are_counted_as_the_definition_says():
    clip = simulated(oldest, slots=4, frames=12, first=5)
    counts = {}
    for query in range(6, 17):  # the frame after each memorized one, but the last
        for frame in clip.held[query - 1 - 5]:
            if frame not in (-1, 5, query - 1):
                counts[query - frame] = counts.get(query - frame, 0) + 1
    histogram = age_histogram("4 slots", [clip])
    total = sum(counts.values())
    expected = [counts.get(age, 0) / total for age in range(len(histogram.shares))]
    np.testing.assert_allclose(histogram.shares, expected)
    assert histogram.templates == total
    assert set(counts) == {2, 3}  # a queue of four holds nothing older


def test_a_memory_of_everything_is_what_chance_gives():
    everything = simulated(oldest, slots=30, frames=30)
    histogram = age_histogram("30 slots", [everything])
    np.testing.assert_allclose(histogram.shares, histogram.chance)
    assert histogram.shares.sum() == pytest.approx(1)


def test_fair_draws_from_the_past_approach_chance():
    """As reservoir sampling does, which keeps every past frame with the same chance."""
    rng = np.random.default_rng(0)
    clips = []
    for _ in range(200):
        rows = []
        for t in range(40):
            # What is in the two inner slots is a fair draw from the frames between.
            inner = rng.permutation(np.arange(1, t))[:3].tolist() if t > 1 else []
            held = [0, *inner, *[-1] * (3 - len(inner)), t if t else -1]
            rows.append(held)
        clips.append(history(rows))
    histogram = age_histogram("5 slots", clips)
    assert np.abs(histogram.shares - histogram.chance).max() < 0.005


@pytest.mark.parametrize("every", [1, 2, 5])
def test_the_newest_template_is_not_counted_however_old_it_is(every):
    """A queue of four: the given frame, the newest, and two between them are read."""
    clip = stored(range(0, 40, every), 40)
    steady = template_ages(clip)[4 * every :]
    for query, ages in enumerate(steady, 4 * every + 1):
        newest = (query - 1) // every * every
        assert sorted(ages) == [query - newest + every, query - newest + 2 * every]


def test_a_mask_between_memorized_frames_is_the_newest_until_the_next():
    offered = [*range(0, 16, 3), 16, *range(18, 40, 3)]
    clip = stored(offered, 40)
    assert clip.memorized().tolist() == offered
    assert sorted(template_ages(clip)[16]) == [17 - 15, 17 - 12]  # not 16, which is the newest


def test_an_object_given_between_memorized_frames():
    clip = stored({5, *range(6, 30, 3)}, 25, given=5)
    assert clip.memorized().tolist() == [5, *range(6, 30, 3)]


def test_a_rule_may_decline_a_frame():
    """Frames 6 and 10 are offered and declined: they are memorized frames, and not held."""
    clip = stored({0, 2, 4, 8, 12}, 14, slots=3)
    assert clip.memorized().tolist() == [0, 2, 4, 6, 8, 10, 12]
    assert sorted(template_ages(clip)[6]) == [7 - 4, 7 - 2]  # the newest, 6, is not held


@pytest.mark.parametrize("every", [2, 3])
def test_a_memory_of_all_memorized_frames_is_what_chance_gives(every):
    everything = stored(range(0, 30, every), 30, slots=30)
    histogram = age_histogram("30 slots", [everything])
    np.testing.assert_allclose(histogram.shares, histogram.chance)
    assert not histogram.chance[: every + 1].any()  # the youngest that counts is before the newest


@pytest.mark.parametrize("every", [1, 2, 3])
def test_a_reservoir_of_memorized_frames_approaches_chance(every):
    """The given frame, the newest, and two of those between them, each with the same chance."""
    rng = np.random.default_rng(0)
    clips = []
    for _ in range(600):
        inner, newest, rows = [], 0, []
        for t in range(20 * every):
            if t % every == 0 and t:
                if newest:  # it makes room for the next one, and may stay in the reservoir
                    offered = newest // every
                    place = offered - 1 if offered <= 2 else int(rng.integers(offered))
                    inner[place : place + 1] = [newest] if place < 2 else []
                newest = t
            rows.append([0, *inner, *[-1] * (2 - len(inner)), newest if newest else -1])
        clips.append(history(rows))
    histogram = age_histogram("4 slots", clips)
    assert np.abs(histogram.shares - histogram.chance).max() < 0.008 / every
    assert histogram.chance.sum() == pytest.approx(1)


@pytest.mark.parametrize("every", [1, 2])
def test_random_select_approaches_chance(every):
    """Rule D declines frames: each one that is offered is held with the same chance."""
    rng = np.random.default_rng(0)
    clips = []
    for _ in range(600):
        held, rows = [0, -1, -1, -1], []
        for t in range(20 * every):
            if t % every == 0 and t:
                offered = t // every
                place = offered if offered <= 3 else 1 + int(rng.integers(offered))
                if place <= 3:
                    held[place] = t
            rows.append(list(held))
        clips.append(history(rows))
    histogram = age_histogram("4 slots", clips)
    assert np.abs(histogram.shares - histogram.chance).max() < 0.008 / every


def test_videos_of_several_lengths_count_by_their_templates():
    short, long = (simulated(oldest, slots=4, frames=n) for n in (6, 20))
    both = age_histogram("", [short, long])
    parts = [age_histogram("", [one]) for one in (short, long)]
    weighted = np.zeros_like(both.shares)
    for part in parts:
        weighted[: len(part.shares)] += part.templates * part.shares
    np.testing.assert_allclose(both.shares, weighted / both.templates)


def test_two_slots_have_no_ages():
    with pytest.raises(StremnError, match="2 slots: the memory held nothing but the given"):
        age_histogram("2 slots", [simulated(oldest, slots=2, frames=9)])


def test_bins_lose_nothing():
    shares = np.r_[0, 0, np.full(11, 1 / 11)]
    sums, edges = binned(shares, 3, 13)
    assert sums.sum() == pytest.approx(1)
    assert edges.tolist() == [2, 5, 8, 11, 14]
    np.testing.assert_allclose(sums, np.array([3, 3, 3, 2]) / 11)


# Recording -----------------------------------------------------------------------------------


def test_a_recorder_counts_frames_as_the_data_set_does(model, tmp_path):
    """The object is given at frame 2 of the sequence, where the session starts to count."""
    clip = square_clips([[0]], frames=7)
    recorder = MemoryRecorder(lambda: session_of(model), tmp_path)
    session = recorder.session()
    for t in range(7):
        if t >= 2:
            mask = clip.labels[0, 2].numpy() if t == 2 else None
            session.step(clip.frames[0, t].permute(1, 2, 0).numpy(), mask)
        recorder.watch("late", t + 1, 7)
    [late] = read_histories(tmp_path / "late.json")
    assert late.frames.tolist() == [2, 3, 4, 5, 6]
    assert late.given == 2
    assert late.retained() == [2, 5, 6]
    row = json.loads((tmp_path / "late.json").read_text())[-1]
    assert row["objects"]["1"]["replaced"]["frame"] == 4


# Failures --------------------------------------------------------------------------------------


def record(name, **objects):
    rows = {
        int(i[1:]): [FrameScore(t, j, j) for t, j in enumerate(values)]
        for i, values in objects.items()
    }
    return SequenceRecord(name, 16, 1.0, rows, rows)


def test_the_worst_objects_come_first_with_a_typical_bad_frame():
    bad = [0.5] * 8 + [0.2, 0.1, 0.0, 0.3] + [0.5] * 4
    records = [record("good", o1=[0.9] * 16), record("mixed", o1=[0.8] * 16, o2=bad)]
    worst, second, third = find_failures(records)
    assert (worst.sequence, worst.object_id) == ("mixed", 2)
    assert (worst.frame, worst.j) == (8, 0.2)  # a quarter, 4 of 16, is bad: its upper median
    assert worst.mean == pytest.approx(np.mean(bad))
    assert (second.sequence, third.sequence) == ("mixed", "good")
    assert len(find_failures(records, count=2)) == 2


def test_means_are_over_objects_as_in_scores_json(tmp_path, monkeypatch):
    """The second object of a sequence has a quarter of the frames, and counts as much."""
    told = {}
    monkeypatch.setattr(
        "stremn.study.score_pictures._draw_bars",
        lambda means, path, title, caption: told.update(means=means, title=title) or path,
    )
    records = [record("two", o1=[0.8] * 16, o2=[0.4] * 4), record("one", o1=[0.9] * 8)]
    draw_scores(records, tmp_path)
    assert told["means"] == {"two": pytest.approx((0.6, 0.6)), "one": pytest.approx((0.9, 0.9))}
    assert "mean J 70.0, mean F 70.0" in told["title"]


def test_a_folder_without_scores(tmp_path):
    with pytest.raises(StremnError, match=r"holds no scores\. Give the output folder"):
        read_records(tmp_path)


# Pictures ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """Few pixels: drawing is what takes the time here."""
    monkeypatch.setattr("stremn.study.figures.DPI", 40)


def check_picture(path):
    """A PNG of a fair size that shows something."""
    picture = np.asarray(Image.open(path).convert("L"))
    assert min(picture.shape) > 60
    assert picture.std() > 10


def test_pictures_of_a_run(model, tmp_path):
    _, rows = rows_of(model, frames=9, slots=4)
    run = tmp_path / "clip"
    run.mkdir()
    (run / "memory.json").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    drawn = analyze_memory([run], tmp_path / "figures")
    assert [path.name for path in drawn] == [
        "timeline-clip-object-1-4-slots.png",
        "timeline-clip-object-2-4-slots.png",
        "ages.png",
    ]
    for path in drawn:
        check_picture(path)


GRAY = 16
"""Gray levels from one frame of a run to the next."""


COUNT = 14
"""Frames of its video."""


def seconds(t):
    return t / 10


def uneven_seconds(t):
    """A pause after every third frame."""
    return t / 10 + 0.7 * (t // 3)


def write_run(folder, first=0, fps=10, time_of=seconds, overlay_fps=None):
    """Write a run with `ResultWriter`, in which frame t is GRAY * t gray."""
    writer = ResultWriter(folder, fps=fps, first=first, overlay_fps=overlay_fps)
    with writer:
        for t in range(first, COUNT):
            image = np.full((64, 96, 3), GRAY * t, np.uint8)
            frame = Frame(t, f"{t:05d}", image, time_of and time_of(t))
            slots = [first, t - 1 if t - 1 > first else None, t if t > first else None]
            memory = {"bytes": 0, "objects": {"1": {"slots": slots, "replaced": None}}}
            writer.write(FrameResult(frame, np.zeros((64, 96), np.uint8), memory))
        writer.finish()
    return folder


def drawn_tiles(monkeypatch):
    """Collect the tiles that are drawn, by the name of their file."""
    found = {}

    def collect(rows, path, title, caption, labels=()):
        found[path.name] = [list(row) for row in rows], list(labels), caption
        return path

    monkeypatch.setattr("stremn.study.memory_pictures.draw_tiles", collect)
    return found


def shown_in(tile):
    """The frame in a tile, as its pixels say."""
    return None if tile.picture is None else round(float(tile.picture.mean()) / GRAY)


@pytest.mark.parametrize(
    ("options", "shown"),
    [
        ({}, range(COUNT)),
        ({"first": 5}, range(5, COUNT)),
        ({"first": 9}, range(9, COUNT)),  # later than the run is long
        ({"overlay_fps": 5}, range(0, COUNT, 2)),
        ({"overlay_fps": 4, "first": 3}, [3, 6, 8, 11, 13]),
        ({"overlay_fps": 4, "first": 3, "time_of": uneven_seconds}, [3, 6, 8, 11, 13]),
        ({"overlay_fps": 4, "fps": None, "time_of": None}, range(COUNT)),  # images: all are shown
        ({"time_of": None, "first": 2}, range(2, COUNT)),
    ],
)
def test_tiles_show_the_frames_they_name(tmp_path, monkeypatch, options, shown):
    run = write_run(tmp_path / "run", **options)
    assert overlay_frames(run / "overlay.mp4", read_memory(run)).tolist() == list(shown)
    found = drawn_tiles(monkeypatch)
    analyze_memory([run], tmp_path / "figures")
    strip = [tile for row in found["strip-run.png"][0] for tile in row]
    named = [int(tile.caption.split()[1]) for tile in strip]
    assert [shown_in(tile) for tile in strip] == named
    assert (named[0], named[-1]) == (shown[0], shown[-1])
    rows, labels, caption = found["retained-run-object-1-3-slots.png"]
    assert labels == ["given", "kept", "newest"]
    assert ("leaves frames out" in caption) == (len(shown) < COUNT - shown[0])
    for kept, row in zip((shown[0], 12, 13), rows, strict=True):
        there = max(frame for frame in shown if frame <= kept)
        stands_for = f"frame {there}" + (f" (for {kept})" if there != kept else "")
        assert [(tile.caption, tile.marked) for tile in row if tile.marked] == [(stands_for, True)]
        assert [shown_in(tile) for tile in row if tile.picture is not None] == [
            int(tile.caption.split()[1]) for tile in row if tile.picture is not None
        ]
        assert shown_in(row[2]) == there


def test_an_overlay_that_does_not_tell_its_frames(tmp_path):
    run = write_run(tmp_path / "run", overlay_fps=5, time_of=None)
    with pytest.raises(StremnError, match=r"each of its 14 frames.*, got 7 pictures\. .*--fps"):
        analyze_memory([run], tmp_path / "figures")
    (run / "overlay.mp4").write_bytes(b"no video")
    with pytest.raises(StremnError, match=r"overlay\.mp4 cannot be opened as a video"):
        analyze_memory([run], tmp_path / "figures")


def test_a_caption_is_not_wider_than_its_figure(tmp_path):
    sentence = "As many of the memorized frames, drawn at random; the memory always holds them. "
    with drawing((9, 4.6), tmp_path / "x.png") as figure:
        figure.subplots()
        head(figure, "A title", 4 * sentence)
    assert all(text.get_window_extent().x1 <= figure.bbox.x1 for text in figure.texts)


def test_a_grid_without_pictures_is_refused(tmp_path):
    clip = simulated(oldest, slots=3, frames=6)
    with pytest.raises(StremnError, match=r"nothing to draw in .*expected at least one frame"):
        draw_retained(clip, lambda index: None, tmp_path)
    with pytest.raises(StremnError, match="nothing to draw"):
        draw_tiles([], tmp_path / "x.png", "", "")


def test_the_newest_kept_frame_is_labeled_so_if_the_last_was_not_memorized(tmp_path, monkeypatch):
    found = drawn_tiles(monkeypatch)
    clip = stored(range(0, 10, 2), 10, slots=3)
    draw_retained(clip, lambda index: np.zeros((8, 8, 3), np.uint8), tmp_path)
    _, labels, caption = found["retained-clip-object-1-3-slots.png"]
    assert labels == ["given", "kept", "newest"]
    assert "frame 8 is the newest" in caption


def test_two_rules_on_one_video_have_pictures_of_their_own(model, tmp_path):
    _, rows = rows_of(model, frames=6, slots=4)
    runs = [tmp_path / rule / "clip" for rule in ("oldest", "spread")]
    for run in runs:
        run.mkdir(parents=True)
        (run / "memory.json").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    drawn = analyze_memory(runs, tmp_path / "figures")
    assert [path.name for path in drawn] == [
        "timeline-oldest-clip-object-1-4-slots.png",
        "timeline-oldest-clip-object-2-4-slots.png",
        "timeline-spread-clip-object-1-4-slots.png",
        "timeline-spread-clip-object-2-4-slots.png",
        "ages.png",
    ]


def test_paths_are_told_apart_by_as_few_parts_as_that_takes():
    a, b, c = Path("/runs/a/last"), Path("/runs/b/last"), Path("/runs/b/best")
    assert distinct([a]) == ["last"]
    assert distinct([a], at_least=2) == ["a/last"]
    assert distinct([a, b, c, a]) == ["a/last", "b/last", "b/best", "a/last"]
    assert distinct([]) == []


def test_pictures_of_a_data_set(model, tmp_path):
    root = tiny_vos.davis(tmp_path / "davis", {"cow": [1, 2]}, count=7)
    data = read_davis(root, "val", 2017)
    runs = tuple(RunDescription("tiny", "oldest", k, 64, precision="float32") for k in (2, 3))
    study = Study(data, model, runs, device="cpu")
    told = []
    drawn = analyze_data(study, tmp_path / "out", watch=lambda *args: told.append(args))
    names = {path.name for path in drawn}
    assert names == {
        "ages.png",
        "failures.png",
        "scores.png",
        "scores-over-time.png",
        "strip-cow.png",
        *(
            f"{kind}-{name}-3-slots.png"
            for kind in ("timeline", "retained")
            for name in ("cow-object-1", "cow-object-2")
        ),
    }
    for path in drawn:
        check_picture(path)
    assert len(told) == 2 * 7


def test_a_sequence_without_scored_frames_has_no_strip(model, tmp_path):
    """DAVIS scores neither the first annotated frame nor the last, and one has just these."""
    names = tiny_vos.names_of(7)
    for animal, annotated in (("cow", names), ("pig", [names[0], names[-1]])):
        tiny_vos.write_sequence(
            tmp_path / "JPEGImages" / animal,
            tmp_path / "Annotations" / animal,
            names,
            [1],
            annotated,
        )
    run = RunDescription("tiny", "oldest", 3, 64)
    study = Study(read_folders(tmp_path), model, (run,), "cpu")
    names = {path.name for path in analyze_data(study, tmp_path / "out")}
    assert "strip-cow.png" in names
    assert "strip-pig.png" not in names
    assert "timeline-pig-object-1-3-slots.png" in names


def test_a_study_runs_what_it_describes(model, tmp_path):
    run = RunDescription("tiny", "oldest", 3, 64, reach=0.5, precision="float32")
    data = read_davis(tiny_vos.davis(tmp_path, {"cow": [1]}), "val", 2017)
    session = Study(data, model, (run,), "cpu").session(run)
    assert (session.memory_slots, session.policy_name, session.size) == (3, "oldest", 64)
    assert (session.reach, str(session.dtype)) == (0.5, "torch.float32")


def test_a_study_needs_a_run(model, tmp_path):
    root = tiny_vos.davis(tmp_path / "davis", {"bear": [1]})
    with pytest.raises(StremnError, match="needs at least one number of slots"):
        analyze_data(Study(read_davis(root, "val", 2017), model, ()), tmp_path / "out")


def test_without_matplotlib_the_extra_is_named(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    tile = Tile(np.zeros((8, 8, 3), np.uint8), "")
    with pytest.raises(MissingExtraError, match=r"stremn\[study\]"):
        draw_tiles([[tile]], tmp_path / "x.png", "", "")


# Trainings -----------------------------------------------------------------------------------

LOG = """step,loss,dice,evictions,lr,own,agrees_oldest
10,1.0,0.5,0,0.1,7,0.5
20,0.5,0.25,1.5,0.1,,1
30,0.25,0.125,2,0.05,8,0
"""
VALIDATION = "step,J,J_bear,probe_right,probe_wrong,evictions_that_matter\n30,0.5,0.5,0.7,0.1,0.2\n"


def write_logs(run):
    run.mkdir()
    (run / "log.csv").write_text(LOG)
    (run / "validation.csv").write_text(VALIDATION)
    return run


def test_logs_are_read_by_column(tmp_path):
    table = read_log(write_logs(tmp_path / "run") / "log.csv")
    steps, values = table["own"]
    assert (steps.tolist(), values.tolist()) == ([10, 30], [7, 8])  # one row lacks it
    assert table["evictions"][1].tolist() == [0, 1.5, 2]


def test_every_column_has_its_panel(tmp_path):
    run = write_logs(tmp_path / "run")
    panels = panels_of(read_log(run / "log.csv"), read_log(run / "validation.csv"))
    shown = [name for panel in panels for name in panel.curves]
    assert shown == [
        "mean J",
        "bear",
        "right memory",
        "wrong memory",
        "share with more than a point",
        "loss",
        "dice",
        "evictions",
        "lr",
        "oldest",
        "own",
    ]


def test_stages_follow_one_another_in_hours(tmp_path):
    for name, seconds in (("one", 360), ("two", 720)):
        (tmp_path / name).mkdir()
        rows = f"step,J_last,seconds_per_step\n10,0.5,{seconds}\n20,0.6,{seconds}\n"
        (tmp_path / name / "log.csv").write_text(rows)
        (tmp_path / name / "validation.csv").write_text("step,J\n15,0.4\n")
    last, mean = by_hours([tmp_path / "one", tmp_path / "two"])
    assert [hours.tolist() for hours, _ in last.curves.values()] == [[1, 2], [4, 6]]
    assert [hours.tolist() for hours, _ in mean.curves.values()] == [[1.5], [5]]
    made = analyze_training([tmp_path / "one", tmp_path / "two"], tmp_path)
    assert made[-1].name == "training-hours.png"
    (tmp_path / "two" / "log.csv").write_text("step,J_last\n10,0.5\n")
    assert by_hours([tmp_path / "one", tmp_path / "two"]) == []


def test_stages_with_folders_of_one_name_keep_their_curves(tmp_path):
    runs = [tmp_path / stage / "train" for stage in ("still", "video")]
    for run in runs:
        run.mkdir(parents=True)
        (run / "log.csv").write_text("step,J_last,seconds_per_step\n10,0.5,360\n20,0.6,360\n")
    [last] = by_hours(runs)
    assert {name: hours.tolist() for name, (hours, _) in last.curves.items()} == {
        "still/train": [1, 2],
        "video/train": [3, 4],
    }


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"step,loss\n10,1\n20,abc\n", "line 3: expected a step and numbers, got '20,abc'"),
        (b"step,loss\n10,1\nten,1\n", "line 3: expected a step and numbers, got 'ten,1'"),
        (b"step,loss\nnan,1\n", "line 2: expected a step and numbers, got 'nan,1'"),
        (b"step,loss\n,1\n", "line 2: expected a step and numbers, got ',1'"),
        (b"step,loss\n10,1,2\n", "line 2: expected 2 cells, got 3"),
        (b"step,loss\n10,1\n20\n30,1\n", "line 3: expected 2 cells, got 1"),
        (b"step,loss\n10,1\n\xff\xfe,1\n", "line 3: expected a line of CSV in UTF-8"),
        (b"loss,lr\n1,2\n", "line 1: expected a column 'step', got the columns loss, lr"),
    ],
)
def test_a_damaged_log_is_named_with_its_line(tmp_path, content, message):
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(StremnError, match=rf"log\.csv is damaged in {message}.*Correct the line"):
        read_log(tmp_path / "log.csv")


def test_a_last_row_that_was_cut_off_is_left_out(tmp_path):
    path = tmp_path / "log.csv"
    for cut in (b"30,0.2", b"30", b"30,0.2\r", b"\xff"):
        path.write_bytes(b"step,loss\r\n10,1\r\n20,0.5\r\n" + cut)
        steps, values = read_log(path)["loss"]
        assert (steps.tolist(), values.tolist()) == ([10, 20], [1, 0.5])
    for nothing in (b"", b"step,lo", b"step,loss\n", b"step,loss\n10,0."):
        path.write_bytes(nothing)
        assert read_log(path) == {}


def test_trainings_without_a_log(tmp_path):
    with pytest.raises(StremnError, match=r"There is no .*log\.csv\. Give the folder"):
        analyze_training([tmp_path], tmp_path)
    (tmp_path / "log.csv").write_text("step\n")
    with pytest.raises(StremnError, match="has no rows yet"):
        analyze_training([tmp_path], tmp_path)


# The command line ----------------------------------------------------------------------------


def test_the_verbs_draw(model, tmp_path):
    run = write_logs(tmp_path / "run")
    _, rows = rows_of(model, frames=5, slots=3)
    (run / "memory.json").write_text("[\n" + ",\n".join(map(json.dumps, rows)) + "\n]\n")
    for verb, picture in (("training", "training-run.png"), ("memory", "ages.png")):
        result = CliRunner().invoke(app, ["analyze", verb, str(run), "-o", str(tmp_path / "out")])
        assert result.exit_code == 0, result.output
        assert picture in result.output
        check_picture(tmp_path / "out" / picture)


def test_numbers_of_slots_are_checked(tmp_path):
    root = tiny_vos.davis(tmp_path / "davis", {"bear": [1]}, year=2016)
    command = ["analyze", "davis", "--root", str(root), "--slots", "3;4"]
    result = CliRunner().invoke(app, command)
    assert isinstance(result.exception, StremnError)
    assert "whole numbers separated by commas" in str(result.exception)
