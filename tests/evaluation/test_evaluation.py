import json
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from PIL import Image

from stremn.core.hardware import pick_precision, precision_name
from stremn.data.readers.layouts import read_davis, read_folders, read_youtube_vos
from stremn.data.readers.sequences import AFTER_GIVEN_RULE, DAVIS_RULE, LVOS_RULE, read_indices
from stremn.errors import StremnError
from stremn.evaluation.segmentation.evaluation import counted, evaluate, given_mask, predict
from stremn.evaluation.segmentation.metrics import contour_accuracy, region_similarity
from stremn.evaluation.segmentation.run_description import RunDescription, session_factory
from stremn.evaluation.segmentation.stored_masks import score_predictions
from tiny_vos import SIZE, davis, names_of, square_labels, write_labels, youtube_vos

RUN = RunDescription(model="copy-last", policy="none", memory_slots=1, size=0)


@dataclass
class Answer:
    labels: np.ndarray


@dataclass
class CopyLast:
    """Repeats every object where it was given; the simplest session there is."""

    labels: np.ndarray | None = None
    masks: list[np.ndarray | None] = field(default_factory=list)

    def step(self, frame, mask=None):
        self.masks.append(mask)
        if mask is not None:
            last = np.zeros_like(mask) if self.labels is None else self.labels
            self.labels = np.where(mask > 0, mask, last)
        return Answer(self.labels)


@dataclass
class Breaks:
    """Fails at its third frame."""

    steps: int = 0

    def step(self, frame, mask=None):
        self.steps += 1
        if self.steps == 3:
            raise RuntimeError("out of memory")
        return Answer(np.zeros(frame.shape[:2], np.uint8))


def test_scores_are_those_of_hand_made_loops(tmp_path):
    data = read_davis(davis(tmp_path / "D", {"dogs": [1, 2], "cat": [1]}, count=8))
    report = evaluate(data, CopyLast, tmp_path / "out", RUN)
    # A 8 x 10 square moves one pixel a frame; the copy stays: frame t shares 10 - t columns.
    expected_j = np.mean([(10 - t) / (10 + t) for t in range(1, 7)])
    truth = [square_labels(t, [1, 2]) for t in range(8)]
    for i in (1, 2):
        f = np.mean([contour_accuracy(truth[0] == i, truth[t] == i) for t in range(1, 7)])
        row = next(r for r in report.plain.objects if (r.sequence, r.object_id) == ("dogs", i))
        assert row.scores.j.mean == pytest.approx(expected_j, abs=1e-12)
        assert row.scores.f.mean == pytest.approx(f, abs=1e-12)
    assert report.plain.mean.j.mean == pytest.approx(expected_j)
    assert len(report.plain.objects) == 3
    assert region_similarity(truth[0] == 1, truth[1] == 1) == pytest.approx(9 / 11)


@dataclass
class Exchanges(CopyLast):
    """Gives object 1's place to object 2 and the other way round from its fourth frame on."""

    def step(self, frame, mask=None):
        labels = super().step(frame, mask).labels
        late = len(self.masks) > 3 and labels.max() == 2
        return Answer(np.array([0, 2, 1], np.uint8)[labels] if late else labels)


def test_swaps_are_counted_where_there_are_several_objects(tmp_path):
    data = read_davis(davis(tmp_path / "D", {"dogs": [1, 2], "cat": [1]}, count=8))
    assert evaluate(data, CopyLast, tmp_path / "a", RUN).plain.swapped() == {"dogs": 0.0}
    report = evaluate(data, Exchanges, tmp_path / "b", RUN)
    assert report.plain.swapped() == {"dogs": 4 / 6}  # frames 3 to 6 of those scored, 1 to 6
    again = score_predictions(data, tmp_path / "b")
    assert again.plain.swapped() == report.plain.swapped()
    resumed = evaluate(data, Exchanges, tmp_path / "b", RUN)
    assert resumed.plain.swapped() == report.plain.swapped()
    objects = report.to_json()["without_postprocessing"]["sequences"]["dogs"]["objects"]
    assert [objects[i]["swapped"] for i in "12"] == [4 / 6, 4 / 6]


def test_files_and_protocol(tmp_path):
    data = read_davis(davis(tmp_path / "D", {"dogs": [1, 2]}))
    out = tmp_path / "out"
    evaluate(data, CopyLast, out, RUN)
    assert [p.name for p in sorted((out / "dogs").iterdir())] == [f"{n}.png" for n in names_of(6)]
    with Image.open(out / "dogs" / "00003.png") as image:
        assert image.mode == "P"
        assert np.array_equal(np.asarray(image), square_labels(0, [1, 2]))
    table = json.loads((out / "scores.json").read_text())
    assert table["protocol"] == {
        "data": "DAVIS 2017",
        "split": "val",
        "sequences": ["dogs"],
        "frames_shown": "every frame",
        "frames_scored": DAVIS_RULE.name,
        "model": "copy-last",
        "policy": "none",
        "memory_slots": 1,
        "size": 0,
        "scales": [1.0],
        "flip": False,
        "seed": 0,
        "reach": None,
        "weights": "",
        "precision": "auto",
        "postprocessing": {"reach": 1.0, "written": "plain"},
        "adapt": 0,
        "every": 1,
        "decay": "mended",
        "scored_masks": 8,
    }
    scores = table["without_postprocessing"]
    assert scores["J&F"] == pytest.approx((scores["J"]["mean"] + scores["F"]["mean"]) / 2)
    assert set(scores["sequences"]["dogs"]["objects"]) == {"1", "2"}
    assert table["with_postprocessing"] == scores
    assert table["failed"] == {}


def test_session_never_sees_a_later_mask(tmp_path):
    data = read_davis(davis(tmp_path, {"dogs": [1]}))
    session = CopyLast()
    assert len(list(predict(data["dogs"], session))) == 6
    assert [mask is None for mask in session.masks] == [False] + [True] * 5


def test_a_later_object_is_given_alone(tmp_path):
    data = read_youtube_vos(youtube_vos(tmp_path))
    video = data["abc"]
    mask = given_mask(video, 2)
    assert np.array_equal(mask, np.where(square_labels(2, [1, 2]) == 2, 2, 0))
    assert [given_mask(video, i) is None for i in range(6)] == [
        False,
        True,
        False,
        True,
        True,
        True,
    ]


def test_frames_before_the_first_object_are_background(tmp_path):
    root = davis(tmp_path, {"dogs": [1]}, annotated=["00002", "00003"])
    (root / "ImageSets").rename(root / "unused")
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / "480p" / "dogs").rename(root / kind / "dogs")
        (root / kind / "480p").rmdir()
    video = read_folders(root)["dogs"]
    assert video.objects == {1: 2}
    session = CopyLast()
    labels = list(predict(video, session))
    assert len(session.masks) == 4
    assert [int(x.max()) for x in labels] == [0, 0, 1, 1, 1, 1]


def test_counted_frames_of_every_rule(tmp_path):
    full = read_davis(davis(tmp_path / "D", {"dogs": [1]}))["dogs"]
    assert list(counted(full, DAVIS_RULE)) == [1, 2, 3, 4]
    assert list(counted(full, AFTER_GIVEN_RULE)) == [1, 2, 3, 4, 5]
    assert list(counted(full, LVOS_RULE)) == [0, 1, 2, 3, 4]
    late = read_youtube_vos(youtube_vos(tmp_path / "Y"))["abc"]
    assert counted(late, AFTER_GIVEN_RULE) == {2: [1]}
    assert counted(replace(late, scored_at={1: frozenset(), 2: frozenset()}), LVOS_RULE) == {}


def test_all_frames_writes_the_submitted_ones(tmp_path):
    data = read_youtube_vos(youtube_vos(tmp_path / "Y"), all_frames=True)
    evaluate(data, CopyLast, tmp_path / "out", RUN)
    written = sorted(p.stem for p in (tmp_path / "out/abc").iterdir())
    assert written == names_of(6, step=5)


def test_seen_and_unseen_scores(tmp_path):
    root = youtube_vos(tmp_path / "Y")
    for index, name in enumerate(names_of(6, step=5)):
        ids = [1] if index < 2 else [1, 2]
        write_labels(root / "valid/Annotations/abc" / f"{name}.png", square_labels(index, ids))
    report = evaluate(read_youtube_vos(root), CopyLast, tmp_path / "out", RUN)
    seen = np.mean([(10 - t) / (10 + t) for t in range(1, 6)])
    unseen = np.mean([(10 - t) / (10 + t) for t in range(1, 4)])
    groups = report.plain.by_group()
    assert groups["seen"].j.mean == pytest.approx(seen)
    assert groups["unseen"].j.mean == pytest.approx(unseen)
    table = json.loads((tmp_path / "out/scores.json").read_text())["without_postprocessing"]
    j_and_f = [table["groups"][name]["J&F"] for name in ("seen", "unseen")]
    assert table["seen_unseen_mean"] == pytest.approx(np.mean(j_and_f))


def test_a_failing_sequence_costs_only_itself_and_is_run_again(tmp_path, caplog):
    data = read_davis(davis(tmp_path / "D", {"dogs": [1], "cat": [1], "cow": [1]}))
    sessions = iter([CopyLast(), Breaks(), CopyLast()])
    report = evaluate(data, lambda: next(sessions), tmp_path / "out", RUN)
    assert report.failures == {"cat": "RuntimeError: out of memory"}
    assert {row.sequence for row in report.plain.objects} == {"dogs", "cow"}
    assert "Sequence cat failed" in caplog.text
    # Started again, only the failed sequence needs a session.
    sessions = iter([CopyLast()])
    again = evaluate(data, lambda: next(sessions), tmp_path / "out", RUN)
    assert again.failures == {}
    fresh = evaluate(data, CopyLast, tmp_path / "fresh", RUN)
    assert again.plain == fresh.plain
    assert json.loads((tmp_path / "out/scores.json").read_text())["failed"] == {}


def test_an_interrupted_run_says_which_sequences_are_finished(tmp_path, caplog):
    class Interrupted:
        def step(self, frame, mask=None):
            raise KeyboardInterrupt

    data = read_davis(davis(tmp_path / "D", {"dogs": [1], "cat": [1], "cow": [1]}))
    with pytest.raises(KeyboardInterrupt):
        evaluate(data, Interrupted, tmp_path / "out", RUN)
    assert not caplog.text  # nothing is finished
    sessions = iter([CopyLast(), Interrupted()])
    with pytest.raises(KeyboardInterrupt):
        evaluate(data, lambda: next(sessions), tmp_path / "out", RUN)
    assert f"1 of 3 sequences are finished in {tmp_path / 'out'}" in caplog.text


def test_another_run_in_the_same_folder_is_refused(tmp_path):
    data = read_davis(davis(tmp_path / "D", {"dogs": [1]}))
    evaluate(data, CopyLast, tmp_path / "out", RUN)
    with pytest.raises(StremnError, match="holds another run: its memory_slots is 1, now 6"):
        evaluate(data, CopyLast, tmp_path / "out", replace(RUN, memory_slots=6))
    with pytest.raises(StremnError, match="its weights is '', now 'abc'"):
        evaluate(data, CopyLast, tmp_path / "out", replace(RUN, weights="abc"))
    with pytest.raises(StremnError, match="its precision is 'auto', now 'bfloat16'"):
        evaluate(data, CopyLast, tmp_path / "out", replace(RUN, precision="bfloat16"))
    with pytest.raises(StremnError, match="must be 'plain' or 'filtered'"):
        evaluate(data, CopyLast, tmp_path / "out2", RUN, written="both")


def test_a_folder_of_an_earlier_version_goes_on(tmp_path):
    data = read_davis(davis(tmp_path / "D", {"dogs": [1]}))
    before = evaluate(data, CopyLast, tmp_path / "out", RUN)
    protocol = tmp_path / "out/.scores/protocol.json"
    table = json.loads(protocol.read_text())
    del table["precision"]
    table["slots"], table["resolution"] = table.pop("memory_slots"), table.pop("size")
    protocol.write_text(json.dumps(table))
    assert evaluate(data, Breaks, tmp_path / "out", RUN).plain == before.plain
    with pytest.raises(StremnError, match="holds another run: its memory_slots is 1, now 6"):
        evaluate(data, CopyLast, tmp_path / "out", replace(RUN, memory_slots=6))


def test_a_session_that_answers_in_another_size(tmp_path):
    class Small:
        def step(self, frame, mask=None):
            return Answer(np.zeros((4, 4), np.uint8))

    data = read_davis(davis(tmp_path / "D", {"dogs": [1]}))
    report = evaluate(data, Small, tmp_path / "out", RUN)
    assert "the session answered (4, 4)" in report.failures["dogs"]
    assert report.plain is None


def test_bad_data_is_found_before_any_computing(tmp_path):
    root = davis(tmp_path / "D", {"dogs": [1], "cat": []})

    def never():
        raise AssertionError("no session may be made")

    with pytest.raises(StremnError, match="cat: the first mask shows no object"):
        evaluate(read_davis(root), never, tmp_path / "out", RUN)


def test_the_filter_is_reported_both_ways(tmp_path):
    @dataclass
    class Ghost:
        labels: np.ndarray | None = None

        def step(self, frame, mask=None):
            if mask is not None:
                self.labels = mask.copy()
                return Answer(mask)
            ghost = self.labels.copy()
            ghost[36:40, 50:56] = 1
            return Answer(ghost)

    data = read_davis(davis(tmp_path / "D", {"dogs": [1]}))
    report = evaluate(data, Ghost, tmp_path / "out", RUN, written="filtered")
    clean = evaluate(data, CopyLast, tmp_path / "clean", RUN)
    assert report.filtered == clean.plain
    assert report.plain.mean.j.mean < report.filtered.mean.j.mean
    with Image.open(tmp_path / "out/dogs/00002.png") as image:
        assert np.asarray(image)[38, 52] == 0


def test_progress_is_told(tmp_path):
    data = read_davis(davis(tmp_path / "D", {"dogs": [1]}))
    seen = []
    evaluate(data, CopyLast, tmp_path / "out", RUN, watch=lambda *told: seen.append(told))
    assert seen == [("dogs", i, 6) for i in range(1, 7)]


def test_a_real_session_is_evaluated(tmp_path, model):
    data = read_davis(davis(tmp_path / "D", {"dogs": [1, 5]}))
    run = RunDescription("random", "oldest", 2, 64)
    report = evaluate(data, session_factory(model, run, device="cpu"), tmp_path / "out", run)
    assert report.failures == {}
    assert {row.object_id for row in report.plain.objects} == {1, 5}
    with Image.open(tmp_path / "out/dogs/00000.png") as image:
        assert np.array_equal(np.asarray(image), square_labels(0, [1, 5]))


def test_the_description_makes_the_session(model):
    plain = session_factory(model, RunDescription("m", "oldest", 3, 96, reach=0.5), device="cpu")()
    assert (plain.memory_slots, plain.policy_name, plain.size) == (3, "oldest", 96)
    assert plain.reach == 0.5
    assert plain.dtype == pick_precision("auto", torch.device("cpu"))
    for name in ("float32", "bfloat16"):
        run = RunDescription(
            "m", "oldest", 3, 96, precision=precision_name(name, torch.device("cpu"))
        )
        assert run.precision == name
        assert session_factory(model, run, device="cpu")().dtype == getattr(torch, name)
    with pytest.raises(StremnError, match="session_factory adapts no network"):
        session_factory(model, RunDescription("m", "oldest", 3, 96, adapt=9), device="cpu")
    many = RunDescription("m", "oldest", 3, 96, scales=(1.0, 1.5), flip=True)
    views = session_factory(model, many, device="cpu")().views
    assert [(view.size, view.flipped) for view in views] == [
        (96, False),
        (96, True),
        (144, False),
        (144, True),
    ]


# Predictions on disk


def test_predictions_on_disk_score_the_same(tmp_path):
    data = read_davis(davis(tmp_path / "D", {"dogs": [1, 2], "cat": [4]}))
    report = evaluate(data, CopyLast, tmp_path / "out", RUN)
    again = score_predictions(data, tmp_path / "out", workers=2)
    assert again.plain == report.plain
    assert again.protocol["scored_masks"] == 12
    assert again.to_json()["with_postprocessing"] is None


def test_black_and_white_predictions_of_one_object(tmp_path):
    """DAVIS 2016 results are published so: 0 and 255."""
    data = read_davis(davis(tmp_path / "D", {"dogs": [1], "cat": [4]}))
    report = evaluate(data, CopyLast, tmp_path / "out", RUN)
    for path in (tmp_path / "out").glob("*/*.png"):
        Image.fromarray(np.uint8(255) * (read_indices(path) > 0)).save(path)
    assert score_predictions(data, tmp_path / "out").plain == report.plain


def test_fewer_workers_than_one_are_refused(tmp_path):
    data = read_davis(davis(tmp_path / "D", {"dogs": [1]}))
    for workers in (0, -1):
        with pytest.raises(StremnError, match=f"one thread or more, got workers={workers}"):
            score_predictions(data, tmp_path, workers=workers)


def test_void_in_predictions_is_background(tmp_path):
    data = read_davis(davis(tmp_path / "D", {"dogs": [1]}))
    report = evaluate(data, CopyLast, tmp_path / "out", RUN)
    for path in (tmp_path / "out").glob("*/*.png"):
        labels = read_indices(path)
        labels[30:36, 5:20] = 255
        write_labels(path, labels)
    assert score_predictions(data, tmp_path / "out").plain == report.plain


def test_bad_predictions(tmp_path):
    data = read_davis(davis(tmp_path / "D", {"dogs": [1], "cat": [1]}))
    out = tmp_path / "out"
    evaluate(data.only(["dogs"]), CopyLast, out, RUN)
    with pytest.raises(StremnError, match="lacks 1 sequences of DAVIS 2017 val: cat"):
        score_predictions(data, out)
    data = data.only(["dogs"])
    (out / "dogs/00003.png").unlink()
    with pytest.raises(StremnError, match=r"lacks 1 scored frames: dogs/00003\.png"):
        score_predictions(data, out)
    write_labels(out / "dogs/00003.png", square_labels(0, [1, 9]))
    with pytest.raises(StremnError, match=r"00003\.png holds ids \[9\] that are not objects"):
        score_predictions(data, out)
    write_labels(out / "dogs/00003.png", np.ones((20, 30), np.uint8))
    with pytest.raises(StremnError, match=rf"30x20 pixels, the video {SIZE[1]}x{SIZE[0]}"):
        score_predictions(data, out)


def test_the_toolkit_decay_can_be_asked_for(tmp_path):
    data = read_davis(davis(tmp_path / "D", {"dogs": [1]}))
    report = evaluate(data, CopyLast, tmp_path / "out", RUN, compat_decay=True)
    assert report.protocol["decay"] == "DAVIS toolkit"


def test_copying_the_first_mask_of_real_video(tmp_path, real_data):
    data = read_davis(real_data / "davis", "dev", 2016)
    report = evaluate(data.only(["blackswan"]), CopyLast, tmp_path, RUN)
    # A swan that drifts: copying keeps most of it.
    assert 0.4 < report.plain.mean.j.mean < 0.95
