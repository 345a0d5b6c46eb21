"""Soups of checkpoints."""

import pytest
import torch

from stremn.errors import StremnError
from stremn.networks.presets import PRESETS, build_model
from stremn.networks.pretrained import Pretrained, load_model
from stremn.training.averaging import (
    Candidate,
    average_models,
    average_weights,
    greedy_soup,
    uniform_soup,
)


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


def test_models_are_averaged_tensor_by_tensor(tmp_path):
    shipped = load_model("small")
    other = load_model("small")
    with torch.no_grad():
        for tensor in other.model.parameters():
            tensor += 0.5
    other.save(tmp_path / "other.safetensors")
    mean = average_models(["small", tmp_path / "other.safetensors"])
    assert mean.config == shipped.config
    for name, tensor in shipped.model.named_parameters():
        found = mean.model.get_parameter(name)
        torch.testing.assert_close(found, tensor + 0.25)


def test_other_models_are_not_averaged(tmp_path):
    config = PRESETS["small"].model_copy(update={"key": 32})
    Pretrained(build_model(config), config).save(tmp_path / "narrow.safetensors")
    with pytest.raises(StremnError, match="configurations differ"):
        average_models(["small", tmp_path / "narrow.safetensors"])
    with pytest.raises(StremnError, match="at least two models, got 1"):
        average_models(["small"])


def test_the_command_writes_a_model_that_loads(tmp_path):
    from typer.testing import CliRunner

    from stremn.cli.app import app

    out = tmp_path / "mean.safetensors"
    result = CliRunner().invoke(app, ["average", "small", "small", "-o", str(out)])
    assert result.exit_code == 0, result.output
    weights = load_model("small").model.state_dict()
    for name, tensor in load_model(out).model.state_dict().items():
        torch.testing.assert_close(tensor, weights[name])
