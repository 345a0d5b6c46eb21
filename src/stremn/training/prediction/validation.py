"""Scores on held-out clips during training, and the averaging of the checkpoints that did best."""

from __future__ import annotations

import copy
import json
import logging
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, cast

from torch import Tensor, nn

from stremn.core.weights import fingerprint
from stremn.data.readers.frame_clips import FrameClips
from stremn.evaluation.prediction.evaluation import PredictionScores, as_predict, score
from stremn.evaluation.prediction.metrics import METRICS
from stremn.media.files import make_folder, write_whole
from stremn.prediction.weights import Predictor, load_predictor, save_predictor
from stremn.training.averaging import Candidate, Soup, greedy_soup, uniform_soup
from stremn.training.prediction.recipe import PredictionRecipe

logger = logging.getLogger("stremn.training.fit")


@dataclass(frozen=True)
class KeptCheckpoint:
    """A file of weights that may be averaged.

    Its name holds all that is known of it: the score, a checksum of what decides scores (see
    `scoring_of`), and a checksum of the weights. Files of earlier versions lack the second.
    """

    path: Path
    score: float
    scoring: str | None
    weights: str

    @classmethod
    def at(cls, path: Path) -> Self:
        """Read the name of a file."""
        score, *scoring, weights = path.stem.split("_")
        return cls(path, float(score), scoring[0] if scoring else None, weights)


def scoring_of(recipe: PredictionRecipe) -> str:
    """Return a checksum of what decides the score of given weights: the clips, and their frames.

    Scores can be compared only where it is the same.
    """
    deciding: dict[str, Any] = {
        "data": True,
        "horizon": {"observed", "future"},
        "train": {"seed"},
        "validation": {"clips"},
    }
    facts = recipe.model_dump(mode="json", include=deciding)
    return f"{zlib.crc32(json.dumps(facts, sort_keys=True).encode()):08x}"


class Validation:
    """Scores on held-out clips; keeps the checkpoints that scored best, for averaging."""

    metrics = tuple(METRICS[name] for name in ("ssim", "mse", "psnr"))

    def __init__(self, recipe: PredictionRecipe, clips: FrameClips, out: Path) -> None:
        self.recipe, self.clips, self.folder = recipe, clips, out / "averaging"
        self._scoring = scoring_of(recipe)

    def scores(self, model: Predictor) -> PredictionScores:
        """Score the model on the held-out clips."""
        horizon = self.recipe.horizon
        return score(
            "validation",
            as_predict(model, next(model.parameters()).device),
            self.clips,
            horizon.observed,
            horizon.future,
            self.metrics,
            limit=self.recipe.validation.clips,
        )

    def __call__(self, model: nn.Module) -> Mapping[str, float]:
        """Return the mean scores for the log; keep the weights if they are among the best."""
        scores = self.scores(cast(Predictor, model))
        result = {name: float(values.mean()) for name, values in scores.values.items()}
        result |= {
            "mse_first": float(scores.curve("mse")[0]),
            "mse_last": float(scores.curve("mse")[-1]),
        }
        if self.recipe.validation.average:
            self._score_again(cast(Predictor, model))
            self._keep(cast(Predictor, model), result["ssim"])
            for each in self._kept()[self.recipe.validation.average :]:
                each.path.unlink()
        return result

    def _kept(self) -> list[KeptCheckpoint]:
        """Return the files of weights that may be averaged, the best first."""
        found = [KeptCheckpoint.at(path) for path in self.folder.glob("*_*.safetensors")]
        return sorted(found, key=lambda each: (each.score, each.weights), reverse=True)

    def _keep(self, model: Predictor, ssim: float) -> None:
        """Keep the weights with their score, in place of what is kept of the same weights.

        A score that is not a number cannot be ranked: such weights are not kept.
        """
        make_folder(self.folder)
        weights = f"{fingerprint(model):08x}"
        path = self.folder / f"{ssim:.6f}_{self._scoring}_{weights}.safetensors"
        if not math.isnan(ssim):
            save_predictor(model, path)
        for each in self._kept():
            if each.weights == weights and each.path != path:
                each.path.unlink()

    def _score_again(self, model: Predictor) -> None:
        """Score what was kept with a score of another validation; `model` stays as it is.

        A run that is resumed may validate on more clips, say: the scores before say nothing then.
        """
        other = [each for each in self._kept() if each.scoring != self._scoring]
        if other:
            logger.info("averaging: %d checkpoints are scored by this validation", len(other))
        for each in other:
            scored = copy.deepcopy(model)
            scored.load_state_dict(load_predictor(each.path).state_dict())
            self._keep(scored, float(self.scores(scored).values["ssim"].mean()))

    def average(self, model: Predictor) -> None:
        """Write `uniform.safetensors` and `greedy.safetensors`, and their scores beside the best's.

        Leaves the better of best single, uniform and greedy in `chosen.safetensors`. Without a
        checkpoint that has a score, logs that and writes nothing.
        """
        out = self.folder.parent
        self._score_again(model)
        candidates = [
            Candidate(index, each.score, load_predictor(each.path).state_dict())
            for index, each in enumerate(self._kept()[: self.recipe.validation.average])
        ]
        if not candidates:
            logger.warning("averaging: no checkpoint has a score that is a number, none is chosen")
            return

        def ssim(weights: Mapping[str, Tensor]) -> float:
            model.load_state_dict(weights)
            return float(self.scores(model).values["ssim"].mean())

        single = Soup(dict(candidates[0].weights), (0,), candidates[0].score)
        soups = {
            "best": single,
            "uniform": uniform_soup(candidates, ssim, len(candidates)),
            "greedy": greedy_soup(candidates, ssim),
        }
        for name, soup in soups.items():
            model.load_state_dict(soup.weights)
            save_predictor(model, self.folder / f"{name}.safetensors")
        chosen = max(soups, key=lambda name: soups[name].score)
        model.load_state_dict(soups[chosen].weights)
        save_predictor(model, out / "chosen.safetensors")
        report = {name: {"ssim": s.score, "averaged": len(s.steps)} for name, s in soups.items()}
        text = json.dumps({"validation": report, "chosen": chosen}, indent=2)
        write_whole(out / "averaging.json", f"{text}\n".encode())
        logger.info("averaging: %s, chosen %s", report, chosen)
