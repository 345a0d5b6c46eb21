"""Scores of frame predictors: a number per clip and frame, with intervals and differences."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from stremn.data.readers.frame_clips import FrameClips
from stremn.errors import StremnError
from stremn.evaluation.intervals import Interval, mean_interval
from stremn.evaluation.prediction.metrics import METRICS, Metric
from stremn.moved import moved_names
from stremn.prediction.baselines import Predict
from stremn.prediction.rollouts import Forecaster

DRAWS = 2000
"""Bootstrap samples of the clips' origins."""


@dataclass(frozen=True)
class PredictionScores:
    """One predictor's scores: for each metric, a number per clip and predicted frame.

    `origins` names what each clip is a sample of, `total` is how many clips there were to choose
    from.
    """

    name: str
    parameters: int
    values: Mapping[str, Float[np.ndarray, "clips frames"]]
    origins: tuple[str, ...]
    total: int

    def interval(self, metric: str) -> Interval:
        """Return the mean over clips and frames with the bootstrap interval over origins."""
        return over_origins(self.values[metric].mean(1), self.origins)

    def curve(self, metric: str) -> Float[np.ndarray, " frames"]:
        """Return the mean over clips of each predicted frame."""
        return self.values[metric].mean(0)


def over_origins(values: Float[np.ndarray, " clips"], origins: Sequence[str]) -> Interval:
    """Return the mean of one number per clip, with the 95 % bootstrap interval over the clips'
    origins."""
    places = {name: place for place, name in enumerate(dict.fromkeys(origins))}
    place = np.array([places[name] for name in origins])
    counts = np.bincount(place)
    return mean_interval(np.bincount(place, values) / counts, counts, draws=DRAWS)


def difference(first: PredictionScores, second: PredictionScores, metric: str) -> Interval:
    """Compute the paired difference first - second over the same clips.

    Raises:
        StremnError: scores of different clips.
    """
    a, b = first.values[metric], second.values[metric]
    if a.shape != b.shape or first.origins != second.origins:
        raise StremnError(
            f"{first.name} and {second.name} were not scored on the same clips: "
            f"{a.shape[0]} clips of {a.shape[1]} frames against {b.shape[0]} of {b.shape[1]}."
        )
    return over_origins((a - b).mean(1), first.origins)


def as_predict(model: Forecaster, device: torch.device | None = None) -> Predict:
    """Turn a trained predictor into a function of observed frames; no true frame is seen later.

    With `device`, where the model is, frames are brought there and predictions back.
    """

    def predict(
        observed: Float[Tensor, "b t c height width"], frames: int
    ) -> Float[Tensor, "b n c height width"]:
        predicted = model.rollout(
            observed.to(device or observed.device), observed.shape[1], frames
        ).frames
        return predicted[:, -frames:].to(observed.device)

    return predict


def check_counts(**counts: int | None) -> None:
    """Refuse numbers of frames or clips below 1; None stands for all.

    Raises:
        StremnError: naming the first such number.
    """
    for name, count in counts.items():
        if count is not None and count < 1:
            raise StremnError(
                f"{name} must be 1 or more, got {count}. A prediction is scored on at least one "
                "clip with one observed and one predicted frame."
            )


@torch.inference_mode()
def score(
    name: str,
    predict: Predict,
    clips: FrameClips,
    observed: int,
    future: int,
    metrics: Sequence[Metric] = tuple(METRICS.values()),
    *,
    parameters: int = 0,
    batch: int = 32,
    limit: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> PredictionScores:
    """Score a predictor on clips of at least `observed + future` frames.

    Args:
        name: of the row.
        predict: the predictor; it sees the first `observed` frames only.
        clips: the test clips, in [0, 255].
        observed: frames given.
        future: frames predicted and scored.
        metrics: what to compute.
        parameters: of the predictor, for the table.
        batch: clips at a time.
        limit: number of clips to use, evenly spaced, because neighbors show the same video.
        progress: called with (clips done, clips in all).

    Raises:
        StremnError: clips that are too short, or none; numbers below 1.
    """
    check_counts(observed=observed, future=future, batch=batch, limit=limit)
    count = len(clips) if limit is None else min(limit, len(clips))
    if count == 0:
        raise StremnError("There are no clips to score.")
    chosen = np.linspace(0, len(clips) - 1, count).round().astype(int).tolist()
    parts: dict[str, list[Tensor]] = {metric.name: [] for metric in metrics}
    for start in range(0, count, batch):
        indices = chosen[start : start + batch]
        frames = torch.stack([clips[i] for i in indices]).float() / 255
        if frames.shape[1] < observed + future:
            raise StremnError(
                f"Clips have {frames.shape[1]} frames, but {observed} observed and {future} "
                f"predicted frames need {observed + future}."
            )
        target = frames[:, observed : observed + future]
        predicted = predict(frames[:, :observed], future).clamp(0, 1)
        for metric in metrics:
            parts[metric.name].append(metric.compute(predicted, target))
        if progress is not None:
            progress(start + len(indices), count)
    values = {n: torch.cat(x).double().cpu().numpy() for n, x in parts.items()}
    return PredictionScores(name, parameters, values, tuple(map(clips.origin, chosen)), len(clips))


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
