"""Averaging of checkpoints (Sec 4.2): "weights at different time steps having high SSIM scores".

A *soup* of one trajectory: uniform over the best few, or greedy, which adds a checkpoint only if
the average scores better on validation. Report the best single checkpoint beside either. The start
of a training stage and its end can be averaged as well: the mean is often steadier than both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from stremn.errors import StremnError
from stremn.networks.pretrained import Pretrained, load_model

StateDict = Mapping[str, Tensor]


@dataclass(frozen=True)
class Candidate:
    """Weights of one time step and their validation score (higher is better)."""

    step: int
    score: float
    weights: StateDict


class Soup(NamedTuple):
    """Averaged weights, the steps that went in, and the validation score of the average."""

    weights: dict[str, Tensor]
    steps: tuple[int, ...]
    score: float


def average_weights(several: Sequence[StateDict]) -> dict[str, Tensor]:
    """Average floating-point tensors in float64; take other tensors from the first.

    Raises:
        StremnError: nothing to average, or weights of different models.
    """
    if not several:
        raise StremnError("There are no weights to average.")
    first = several[0]
    for other in several[1:]:
        shapes = {name: tensor.shape for name, tensor in other.items()}
        if shapes != {name: tensor.shape for name, tensor in first.items()}:
            raise StremnError(
                "Weights of different models cannot be averaged: names or shapes differ."
            )
    return {
        name: torch.stack([weights[name].double() for weights in several]).mean(0).to(tensor.dtype)
        if tensor.is_floating_point()
        else tensor.clone()
        for name, tensor in first.items()
    }


def average_models(sources: Sequence[str | Path]) -> Pretrained:
    """Return the segmentation model whose weights are the mean of several models' weights.

    Args:
        sources: presets, weights files, folders or hub ids (see `load_model`); models of one
            configuration, of which one was trained from the other or all from the same.

    Raises:
        StremnError: fewer than two, a source that cannot be loaded, or different models.
    """
    if len(sources) < 2:
        raise StremnError(f"Averaging needs at least two models, got {len(sources)}.")
    models = [load_model(source) for source in sources]
    for source, other in zip(sources[1:], models[1:], strict=True):
        if other.config != models[0].config:
            raise StremnError(
                f"{source} is another model than {sources[0]}: their configurations differ. Only "
                "weights of one model can be averaged."
            )
    weights = average_weights([each.model.state_dict() for each in models])
    models[0].model.load_state_dict(weights)
    return models[0]


def uniform_soup(
    candidates: Sequence[Candidate], score: Callable[[StateDict], float], best: int = 5
) -> Soup:
    """Average the `best` candidates by score.

    Args:
        candidates: checkpoints of one training.
        score: validation score of weights, higher is better; never the test set's.
        best: how many to average.
    """
    chosen = _ranked(candidates)[:best]
    weights = average_weights([candidate.weights for candidate in chosen])
    return Soup(weights, tuple(candidate.step for candidate in chosen), score(weights))


def greedy_soup(candidates: Sequence[Candidate], score: Callable[[StateDict], float]) -> Soup:
    """Start from the best candidate; add each next one if the average then scores no worse.

    Args:
        candidates: checkpoints of one training.
        score: validation score of weights, higher is better; never the test set's.
    """
    best, *others = _ranked(candidates)
    chosen = [best]
    soup = Soup(average_weights([best.weights]), (best.step,), score(best.weights))
    for candidate in others:
        trial = average_weights([*(c.weights for c in chosen), candidate.weights])
        trial_score = score(trial)
        if trial_score >= soup.score:
            chosen.append(candidate)
            soup = Soup(trial, (*soup.steps, candidate.step), trial_score)
    return soup


def _ranked(candidates: Sequence[Candidate]) -> list[Candidate]:
    if not candidates:
        raise StremnError("There are no checkpoints to average.")
    return sorted(candidates, key=lambda candidate: candidate.score, reverse=True)
