import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from stremn.errors import StremnError
from stremn.evaluation.intervals import Interval, mean_interval

ONE = np.ones(8, np.int64)


def slow_interval(values, objects, draws, seed):
    rng = np.random.default_rng(seed)
    means = []
    for row in rng.integers(0, len(values), (draws, len(values))):
        pool = [values[i] for i in row for _ in range(objects[i])]
        means.append(sum(pool) / len(pool))
    return np.quantile(means, [0.025, 0.975])


@given(st.lists(st.tuples(st.floats(-1, 1), st.integers(1, 5)), min_size=1, max_size=12))
@settings(max_examples=30, deadline=None)
def test_equals_loops(rows):
    values, objects = (np.array(column) for column in zip(*rows, strict=True))
    interval = mean_interval(values, objects, draws=50, seed=3)
    assert (interval.low, interval.high) == pytest.approx(slow_interval(values, objects, 50, 3))
    assert interval.mean == pytest.approx(np.average(values, weights=objects))


def test_constant_values_have_no_spread():
    interval = mean_interval(np.full(8, 0.7), ONE)
    assert (interval.low, interval.high) == pytest.approx((0.7, 0.7))


def test_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(0)
    inside = 0
    for _ in range(200):
        interval = mean_interval(rng.normal(0.5, 0.1, 30), np.ones(30, np.int64), draws=400)
        inside += interval.low <= 0.5 <= interval.high
    assert 0.88 <= inside / 200 <= 0.98


def test_few_sequences_are_covered_as_often_as_the_page_says():
    rng = np.random.default_rng(0)
    for count, said in ((5, 0.83), (8, 0.89)):
        inside = 0
        for _ in range(600):
            sample = rng.normal(0.5, 0.1, count)
            interval = mean_interval(sample, np.ones(count, np.int64), draws=400)
            inside += interval.low <= 0.5 <= interval.high
        assert inside / 600 == pytest.approx(said, abs=0.05)


@pytest.mark.parametrize("values", [[0.003], [0.003, 0.004]])
def test_one_or_two_sequences_say_nothing_about_others(values):
    interval = mean_interval(np.array(values), np.ones(len(values), np.int64))
    assert interval.mean == pytest.approx(np.mean(values))
    assert not interval.known
    assert interval.tie


def test_same_seed_same_interval():
    values = np.random.default_rng(1).random(8)
    assert mean_interval(values, ONE) == mean_interval(values, ONE)
    assert mean_interval(values, ONE) != mean_interval(values, ONE, seed=1)


def test_drawing_in_parts_changes_no_number():
    values, counts = np.random.default_rng(2).random(1001), np.arange(1001) % 3 + 1
    drawn = np.random.default_rng(0).integers(0, 1001, (3000, 1001))
    means = (values * counts)[drawn].sum(1) / counts[drawn].sum(1)
    found = mean_interval(values, counts, draws=3000)
    assert [found.low, found.high] == np.quantile(means, [0.025, 0.975]).tolist()


def test_many_sequences_do_not_fill_the_memory():
    values, ones = np.random.default_rng(3).random(4000), np.ones(4000, np.int64)
    tracemalloc.start()
    try:
        mean_interval(values, ones, draws=2000)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 40e6  # all indices at once take 64 MB, and as much again for what they pick


def test_tie():
    assert Interval(0.01, -0.01, 0.03, 8).tie
    assert not Interval(0.02, 0.01, 0.03, 8).tie
    assert not Interval(-0.02, -0.03, -0.01, 8).tie


def test_bad_counts():
    with pytest.raises(StremnError, match="at least one sequence"):
        mean_interval(np.array([]), np.array([], np.int64))
    with pytest.raises(StremnError, match="3 values with 8 object counts"):
        mean_interval(np.zeros(3), ONE)
