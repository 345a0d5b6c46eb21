from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stremn.data.readers.layouts import read_davis, read_folders
from stremn.errors import StremnError
from stremn.evaluation.segmentation.evaluation import counted, given_mask
from stremn.study.suites import long_suite, occlusion_suite, short_suite, to_and_fro
from tiny_vos import SIZE, davis, square_labels, write_frame, write_labels


@given(st.integers(1, 40), st.integers(1, 300), st.floats(0, 0.99))
def test_to_and_fro_never_returns_to_the_first_frames(length, total, fraction):
    turn = min(round(fraction * length), length - 1)
    indices = to_and_fro(length, total, turn)
    assert len(indices) == total
    assert indices[:length] == list(range(min(length, total)))
    assert all(turn <= i < length for i in indices[length:])
    assert all(abs(a - b) <= 1 for a, b in pairwise(indices))


def test_to_and_fro_by_hand():
    assert to_and_fro(5, 14, 2) == [0, 1, 2, 3, 4, 3, 2, 3, 4, 3, 2, 3, 4, 3]
    assert to_and_fro(3, 2, 1) == [0, 1]
    assert to_and_fro(1, 4, 0) == [0, 0, 0, 0]


def test_short_is_the_data_set(tmp_path):
    data = read_davis(davis(tmp_path, {"dogs": [1]}))
    assert short_suite(data).data is data


def test_long_suite(tmp_path):
    data = read_davis(davis(tmp_path, {"dogs": [1, 2]}, count=8))
    suite = long_suite(data, frames=30)
    long = suite.data["dogs"]
    assert len(long) == 30
    assert long.objects == {1: 0, 2: 0}
    assert np.array_equal(long.label(8), square_labels(6, [1, 2]))
    assert np.array_equal(long.frame(8), data["dogs"].frame(6))
    assert long.frame_name(29) == "00029"
    assert list(counted(long, suite.data.rule)) == list(range(1, 30))
    assert not long.submits(0)
    assert [i for i in range(30) if given_mask(long, i) is not None] == [0]


def test_an_object_that_comes_late_is_given_once(tmp_path):
    frames, labels = tmp_path / "JPEGImages/s", tmp_path / "Annotations/s"
    for index in range(6):
        write_frame(frames / f"{index}.jpg", index)
        ids = [1] if index < 3 else [1, 2]
        write_labels(labels / f"{index}.png", square_labels(index, ids))
    data = read_folders(tmp_path, late_objects=True)
    long = long_suite(data, frames=20).data["s"]
    assert long.objects == {1: 0, 2: 3}
    assert [i for i in range(20) if given_mask(long, i) is not None] == [0, 3]
    assert long_suite(data, frames=2).data["s"].objects == {1: 0}


def test_occlusion_suite(tmp_path):
    root = davis(tmp_path, {"dogs": [1], "cat": [1]}, count=8)
    for index in range(8):  # the foreign frames have another size
        write_frame(root / f"JPEGImages/480p/cat/{index:05d}.jpg", index, (20, 30))
        small = square_labels(index, [1])[:20, :30]
        write_labels(root / f"Annotations/480p/cat/{index:05d}.png", small)
    data = read_davis(root)
    suite = occlusion_suite(data, gaps=(3, 11), positions=(0.25, 0.5))
    assert len(suite.data) == 8
    hidden = suite.data["dogs+3@0.5"]
    assert len(hidden) == 11
    assert [hidden.annotated(i) for i in range(11)] == [True] * 4 + [False] * 3 + [True] * 4
    assert hidden.frame(5).shape == (*SIZE, 3)
    assert hidden.label(5) is None
    assert np.array_equal(hidden.label(7), square_labels(4, [1]))
    assert list(counted(hidden, suite.data.rule)) == [7, 8, 9, 10]
    assert suite.source_of["dogs+3@0.5"] == "dogs"
    assert suite.condition_of["dogs+3@0.5"] == "3 frames at 0.5"
    # A gap longer than the foreign sequence is filled to and fro.
    assert len(suite.data["dogs+11@0.25"]) == 19


def test_several_foreign_sequences_differ_and_the_first_stays(tmp_path):
    data = read_davis(davis(tmp_path, {n: [1] for n in "abcdef"}, count=2))
    one = occlusion_suite(data, gaps=(2,)).data
    two = occlusion_suite(data, gaps=(2,), foreign=2)
    assert len(two.data) == 2 * len(data)
    assert len({s.name for s in two.data}) == 2 * len(data)
    assert set(two.condition_of.values()) == {"2 frames at 0.5"}
    for sequence in data:
        parts = [s for s in two.data if two.source_of[s.name] == sequence.name]
        cut_in = [{shown.sequence.name for shown in part.shown} - {sequence.name} for part in parts]
        assert [len(names) for names in cut_in] == [1, 1]
        assert cut_in[0] != cut_in[1]
        alone = next(s for s in one if s.name == parts[0].name)
        assert {shown.sequence.name for shown in alone.shown} == cut_in[0] | {sequence.name}
    with pytest.raises(StremnError, match="cuts 6 other sequence"):
        occlusion_suite(data, foreign=6)


def test_foreign_sequences_depend_on_the_seed_alone(tmp_path):
    data = read_davis(davis(tmp_path, {n: [1] for n in "abcdef"}, count=2))

    def foreign(seed):
        shown = occlusion_suite(data, gaps=(1,), seed=seed).data
        return [s.shown[1].sequence.name for s in shown]

    assert foreign(0) == foreign(0)
    assert any(foreign(0) != foreign(s) for s in range(1, 5))
    assert all(
        f != own for seed in range(5) for f, own in zip(foreign(seed), "abcdef", strict=True)
    )


def test_bad_settings(tmp_path):
    data = read_davis(davis(tmp_path, {"dogs": [1], "cat": [1]}))
    with pytest.raises(StremnError, match="got turn 1"):
        long_suite(data, turn=1.0)
    with pytest.raises(StremnError, match="needs one sequence more"):
        occlusion_suite(data.only(["dogs"]))
    with pytest.raises(StremnError, match="gaps must be positive"):
        occlusion_suite(data, gaps=(0,))
    with pytest.raises(StremnError, match="positions between 0 and 1"):
        occlusion_suite(data, positions=(1.5,))
