"""Scores on held-out clips during training, and the averaging of the checkpoints that did best."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import cast

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


class Validation:
    """Scores on held-out clips; keeps the checkpoints that scored best, for averaging."""

    metrics = tuple(METRICS[name] for name in ("ssim", "mse", "psnr"))

    def __init__(self, recipe: PredictionRecipe, clips: FrameClips, out: Path) -> None:
        self.recipe, self.clips, self.folder = recipe, clips, out / "averaging"

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
            self._keep(cast(Predictor, model), result["ssim"])
        return result

    def _keep(self, model: Predictor, ssim: float) -> None:
        """Keep the weights if they are among the best; the score is in the file's name.

        So is their checksum: weights that are scored again are no second candidate.
        """
        make_folder(self.folder)
        save_predictor(model, self.folder / f"{ssim:.6f}_{fingerprint(model):08x}.safetensors")
        ranked = sorted(self.folder.glob("*_*.safetensors"), reverse=True)
        for path in ranked[self.recipe.validation.average :]:
            path.unlink()

    def average(self, model: Predictor) -> None:
        """Write `uniform.safetensors` and `greedy.safetensors`, and their scores beside the best's.

        Leaves the better of best single, uniform and greedy in `chosen.safetensors`.
        """
        out = self.folder.parent
        candidates = [
            Candidate(index, float(path.name.partition("_")[0]), load_predictor(path).state_dict())
            for index, path in enumerate(sorted(self.folder.glob("*_*.safetensors"), reverse=True))
        ]

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
