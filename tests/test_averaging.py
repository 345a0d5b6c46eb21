"""Soups of checkpoints."""

import pytest
import torch

from stremn.errors import StremnError
from stremn.training.averaging import Candidate, average_weights, greedy_soup, uniform_soup


def weights(value, count=1):
    return {"w": torch.tensor([value, -value]), "count": torch.tensor(count)}


def closeness_to_two(candidate):
    return -abs(float(candidate["w"][0]) - 2.0)


def candidates(*values):
    return [
        Candidate(step, closeness_to_two(weights(value)), weights(value, step))
        for step, value in enumerate(values)
    ]


def test_average_is_the_mean_and_keeps_types():
    mean = average_weights([weights(1.0, 7), weights(2.0, 9), weights(6.0, 9)])
    assert mean["w"].tolist() == [3.0, -3.0]
    assert mean["w"].dtype == torch.float32
    assert int(mean["count"]) == 7


def test_average_is_taken_in_double_precision():
    large = {"w": torch.full((1,), 2.0**24)}
    small = {"w": torch.ones(1)}
    assert float(average_weights([large, small, small, small, small])["w"]) == (2**24 + 4) / 5


def test_uniform_soup_averages_the_best():
    soup = uniform_soup(candidates(9.0, 1.0, 2.5, -5.0), closeness_to_two, best=2)
    assert soup.steps == (2, 1)
    assert float(soup.weights["w"][0]) == 1.75
    assert soup.score == -0.25


def test_greedy_soup_takes_only_what_helps():
    soup = greedy_soup(candidates(1.5, 2.4, 9.0), closeness_to_two)
    assert soup.steps == (1, 0)  # 2.4, then 1.5 gives 1.95; 9.0 would spoil it
    assert soup.score == pytest.approx(-0.05, abs=1e-6)


def test_greedy_soup_is_never_worse_than_the_best_single():
    for values in ([1.0, 4.0], [2.0, 2.5, 3.0], [0.0, 5.0, 1.9]):
        some = candidates(*values)
        assert greedy_soup(some, closeness_to_two).score >= max(c.score for c in some)


def test_soups_of_nothing_or_of_different_models_are_refused():
    with pytest.raises(StremnError, match="no weights to average"):
        average_weights([])
    with pytest.raises(StremnError, match="no checkpoints to average"):
        greedy_soup([], closeness_to_two)
    with pytest.raises(StremnError, match="different models cannot be averaged"):
        average_weights([weights(1.0), {"w": torch.zeros(3)}])
