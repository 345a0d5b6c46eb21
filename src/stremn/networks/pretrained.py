"""Load segmentation models by name, file, folder or hub id, and save them."""

from __future__ import annotations

import copy
import json
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self
from zipfile import is_zipfile

from huggingface_hub import ModelHubMixin

from stremn.core.config import build
from stremn.core.hub import UNREACHABLE, HubModel
from stremn.core.weights import check_shapes, fill, read_weights, save_weights
from stremn.errors import StremnError
from stremn.memory.fusion import FusionConfig
from stremn.moved import moved_names
from stremn.networks.model import STReMN
from stremn.networks.presets import (
    PRESETS,
    SegmentationConfig,
    build_hint,
    build_model,
    build_write,
)

TASK = "segmentation"
FILE = "model.safetensors"
SHIPPED_FILES = {"small": "small.safetensors"}
"""Presets whose weights come with the package."""


def load_model(source: str | Path) -> Pretrained:
    """Return a model with weights: a preset's name, a file, a folder, or a hub id.

    A hub id is `owner/name`, or `owner/name@REVISION` for a commit, tag or branch.

    Raises StremnError if there are no such weights, or they are damaged or another task's.
    """
    return Pretrained.from_file(find_weights(source))


def config_of(source: str | Path) -> SegmentationConfig:
    """Return what `load_model` would build, without building it.

    Raises StremnError as `load_model` does.
    """
    path = find_weights(source)
    return build(SegmentationConfig, read_weights(path, TASK)[0], str(path))


def find_weights(source: str | Path) -> Path:
    """Return the weights file that `source` stands for; a hub id is downloaded."""
    path = Path(source)
    if str(source) in SHIPPED_FILES:
        return Path(str(resources.files("stremn").joinpath("weights", SHIPPED_FILES[str(source)])))
    if path.is_dir():
        _check_own(path)
        return path / FILE
    if path.is_file() and is_zipfile(path):  # as PyTorch writes them
        raise StremnError(
            f"{source} is a checkpoint of PyTorch, expected a weights file (.safetensors). If it "
            "is the official one of STM or STCN, convert it once: stremn convert "
            f"{source} -o {path.with_suffix('.safetensors').name}."
        )
    if path.is_file() or path.suffix == ".safetensors":
        return path
    if str(source) in PRESETS:
        raise StremnError(
            f"No weights come with the preset {str(source)!r}: train them with its recipes, then "
            f"give the file. Presets with weights: {', '.join(SHIPPED_FILES)}."
        )
    on_hub = HubModel.parse(str(source))
    if on_hub is None:
        raise StremnError(
            f"There is no model {str(source)!r}: not a preset with weights "
            f"({', '.join(SHIPPED_FILES)}), not a file or folder, and no hub id, which reads "
            "owner/name or owner/name@REVISION."
        )
    try:
        return on_hub.download(FILE)
    except UNREACHABLE as error:
        raise StremnError(
            f"There is no model {str(source)!r}: not a preset with weights "
            f"({', '.join(SHIPPED_FILES)}), not a file or folder, and not available from the "
            f"hub ({type(error).__name__}). Check the name, its revision, and the connection."
        ) from error


def _check_own(folder: Path) -> None:
    """Refuse a folder of transformers, whose configuration names a `model_type`."""
    config = folder / "config.json"
    try:
        kind = json.loads(config.read_text(encoding="utf-8")).get("model_type")
    except (OSError, ValueError, AttributeError):
        return
    if kind is not None:
        raise StremnError(
            f"{folder} holds a model of transformers ({kind}), expected one of this package's own "
            "networks. SAM models can be used with segment, web, evaluate and bench."
        )


class Pretrained(ModelHubMixin, library_name="stremn", tags=["video-object-segmentation"]):
    """A segmentation model with its configuration.

    `save_pretrained(folder)`, `push_to_hub(id)` and `from_pretrained(source)` are those of
    huggingface_hub; `from_pretrained` also takes a preset's name or a file.
    """

    def __init__(self, model: STReMN, config: SegmentationConfig) -> None:
        self.model = model
        self.config = config

    @classmethod
    def from_file(cls, path: Path) -> Self:
        """Rebuild the model from a weights file alone."""
        raw, tensors = read_weights(path, TASK)
        config = build(SegmentationConfig, raw, str(path))
        check_shapes(lambda: build_model(config), tensors, path)
        model = build_model(config)
        fill(model, tensors, path)
        return cls(model.eval(), config)

    def with_fusion(self, fusion: FusionConfig | None) -> Pretrained:
        """Return a copy whose memory fuses evicted templates (Appendix B); None turns fusion off.

        A fusion module is new and untrained; all other weights are the same.
        """
        config = self.config.model_copy(update={"fusion": fusion})
        model = copy.deepcopy(self.model)
        del model.write  # PyTorch does not let a function take the place of a module
        model.write = build_write(config)
        return Pretrained(_like_the_rest(model), config)

    def with_summary(self) -> Pretrained:
        """Return a copy whose objects have summaries (`memory.summary`), not trained yet.

        Raises StremnError for networks of another family than the paper's.
        """
        changed = self.config.model_dump() | {"summary": True}
        config = build(SegmentationConfig, changed, "No summary can be added")
        model = copy.deepcopy(self.model)
        model.hint = build_hint(config, model.query_encoder.channels)
        return Pretrained(_like_the_rest(model), config)

    def save(self, path: str | Path) -> None:
        """Write one file that holds weights and configuration."""
        save_weights(self.model, TASK, self.config.model_dump_json(), Path(path))

    def _save_pretrained(self, save_directory: Path) -> None:
        self.save(save_directory / FILE)

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> Self:
        """Load by preset name, file, folder or hub id; other arguments are not taken."""
        if kwargs:
            raise StremnError(f"from_pretrained does not take {', '.join(kwargs)}.")
        return cls.from_file(find_weights(pretrained_model_name_or_path))


def _like_the_rest(model: STReMN) -> STReMN:
    """Bring a part that was put into a model to the device and the number type of the others."""
    return model.to(model.query_key.conv.weight)


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
