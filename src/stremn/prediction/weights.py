"""Predictors by name or file: weights with the configuration that rebuilds them."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

from torch import Tensor

from stremn.core.config import build
from stremn.core.weights import check_shapes, fill, read_weights, save_weights
from stremn.errors import StremnError
from stremn.moved import with_current_facts
from stremn.prediction.baselines import RecurrentConfig, RecurrentPredictor, build_baseline
from stremn.prediction.building import build_predictor
from stremn.prediction.config import PredictionConfig
from stremn.prediction.model import FramePredictor

TASK = "prediction"
SHIPPED: dict[str, str] = {
    "natural": "prediction-natural.safetensors",
    "digits": "prediction-digits-64.safetensors",
}
"""Weights that come with the package: name -> file."""

Predictor = FramePredictor | RecurrentPredictor


def save_predictor(model: Predictor, path: Path) -> None:
    """Write weights and configuration to one file, in one move."""
    save_weights(model, TASK, model.config.model_dump_json(), path)


def load_predictor(source: str | Path) -> Predictor:
    """Load any predictor from a file, or shipped weights by their name (see `SHIPPED`).

    Raises:
        StremnError: no such file, or no weights of a predictor.
    """
    path = weights_path(source)
    config, tensors = read_weights(path, TASK)
    if config.get("kind") == "stremn":
        return _memory_predictor(config, tensors, path)
    baseline = build(RecurrentConfig, config, str(path))
    check_shapes(lambda: build_baseline(baseline), tensors, path)
    model = build_baseline(baseline)
    fill(model, tensors, path)
    return model.eval()


def load_memory_predictor(source: str | Path) -> FramePredictor:
    """Load a predictor with a space-time memory; refuse recurrent baselines.

    Raises:
        StremnError: as `load_predictor`, or weights of a baseline.
    """
    path = weights_path(source)
    config, tensors = read_weights(path, TASK)
    if config.get("kind") != "stremn":
        raise StremnError(
            f"{path} holds the baseline {config.get('kind')!r}, which has no space-time memory. "
            "It can only be evaluated."
        )
    return _memory_predictor(config, tensors, path)


def weights_path(source: str | Path) -> Path:
    """Return the file of shipped weights by name, or the path itself if there is a file.

    Raises:
        StremnError: neither.
    """
    if isinstance(source, str) and source in SHIPPED:
        return Path(str(resources.files("stremn").joinpath("weights", SHIPPED[source])))
    path = Path(source)
    if not path.is_file():
        raise StremnError(
            f"There are no weights at {path}. Give a file, or one of: {', '.join(SHIPPED)}."
        )
    return path


def _memory_predictor(
    config: dict[str, Any], tensors: dict[str, Tensor], path: Path
) -> FramePredictor:
    checked = build(PredictionConfig, with_current_facts(config), str(path))
    check_shapes(lambda: build_predictor(checked), tensors, path)
    model = build_predictor(checked)
    fill(model, tensors, path)
    return model.eval()
