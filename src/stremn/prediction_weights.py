"""Weights of predictors on disk: safetensors with the configuration in the header."""

from __future__ import annotations

import json
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stremn.baselines import RecurrentConfig, RecurrentPredictor, build_baseline
from stremn.checkpoints import write_atomically
from stremn.config import build
from stremn.errors import StremnError
from stremn.prediction import FramePredictor, PredictionConfig, build_model

_KEY = "stremn_prediction"
SHIPPED: dict[str, str] = {"digits": "prediction-digits-64.safetensors"}
"""Weights that come with the package: name -> file."""

Predictor = FramePredictor | RecurrentPredictor
PredictorT = TypeVar("PredictorT", FramePredictor, RecurrentPredictor)


def save_predictor(model: Predictor, path: Path) -> None:
    """Write weights and configuration to one file, in one move."""
    header = {_KEY: model.config.model_dump_json()}
    tensors = {
        name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()
    }
    write_atomically(path, lambda file: save_file(tensors, file, metadata=header))


def load_predictor(source: str | Path) -> Predictor:
    """Load any predictor from a file, or shipped weights by their name (see `SHIPPED`).

    Raises:
        StremnError: no such file, or no weights of a predictor.
    """
    path = weights_path(source)
    config, tensors = _read(path)
    if config.get("kind") == "stremn":
        return _filled(build_model(build(PredictionConfig, config, str(path))), tensors, path)
    return _filled(build_baseline(build(RecurrentConfig, config, str(path))), tensors, path)


def load_memory_predictor(source: str | Path) -> FramePredictor:
    """Load a predictor with a space-time memory; refuse recurrent baselines.

    Raises:
        StremnError: as `load_predictor`, or weights of a baseline.
    """
    path = weights_path(source)
    config, tensors = _read(path)
    if config.get("kind") != "stremn":
        raise StremnError(
            f"{path} holds the baseline {config.get('kind')!r}, which has no space-time memory. "
            "It can only be evaluated."
        )
    return _filled(build_model(build(PredictionConfig, config, str(path))), tensors, path)


def weights_path(source: str | Path) -> Path:
    """File of shipped weights by name, or the path itself if there is a file.

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


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    try:
        with safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(_KEY)
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (OSError, SafetensorError) as error:
        raise StremnError(f"Cannot read weights from {path}: {error}.") from error
    if header is None:
        raise StremnError(
            f"{path} holds no weights of a frame predictor. Weights of segmentation models belong "
            "to other commands."
        )
    return json.loads(header), tensors


def _filled(model: PredictorT, tensors: dict[str, Tensor], path: Path) -> PredictorT:
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise StremnError(f"{path} is damaged: {error}.") from error
    return model.eval()
