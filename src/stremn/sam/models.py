"""Load published SAM models by hub id or folder, through transformers."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from importlib import metadata
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from stremn.core.hub import HubModel
from stremn.errors import MissingExtraError, StremnError

OLDEST, BEFORE = (5, 20), (5, 25)
"""Versions of transformers that the tests have run with: from, and up to but without."""

FAMILIES = {
    "sam2_video": "Sam2VideoModel",
    "edgetam_video": "EdgeTamVideoModel",
    "sam3_tracker_video": "Sam3TrackerVideoModel",
}
"""Model types of transformers, and their classes."""

WHOLE_SAM3 = "sam3_video"
"""SAM 3 with its detector: the tracker is a part of it."""

READ = (*FAMILIES, WHOLE_SAM3)

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@dataclass(frozen=True)
class SamModel:
    """A model of transformers, with the facts that a session needs.

    mean, std: of the colors in [0, 1] that it was trained with.
    """

    network: Any
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    _copies: WeakValueDictionary[tuple[torch.device, torch.dtype], SamModel] = field(
        default_factory=WeakValueDictionary, init=False, repr=False, compare=False
    )

    @property
    def size(self) -> int:
        """Side in pixels of the square that frames are resized to."""
        size = self.network.config.image_size
        return int(size if isinstance(size, int) else size[0])

    @property
    def memories(self) -> int:
        """Frames that it was trained to remember: the given one and the latest segmented."""
        return int(self.network.config.num_maskmem)

    @property
    def pointers(self) -> int:
        """Frames, the present one included, whose object pointers it reads."""
        return int(self.network.config.max_object_pointers_in_encoder)

    def pixels(
        self, image: UInt8[Tensor, "height width 3"], dtype: torch.dtype
    ) -> Float[Tensor, "1 3 h w"]:
        """Convert a frame to the model's input."""
        from torchvision.transforms.v2 import functional as TF

        planes = image.permute(2, 0, 1)[None]
        square = TF.resize(planes, [self.size, self.size], antialias=True).float() / 255
        return TF.normalize(square, list(self.mean), list(self.std)).to(dtype)

    def placed(self, device: torch.device, dtype: torch.dtype) -> SamModel:
        """Return the model on a device and in a number type: itself if possible, else a copy.

        This model stays as it is, since others may be using it. A copy is shared by all who ask
        for the same one, and freed when none of them is left.
        """
        device = torch.empty(0, device=device).device  # "cuda" is one of several: say which
        if _is_placed(self.network, device, dtype):
            return self
        found = self._copies.get((device, dtype))
        if found is None:
            found = replace(self, network=copy.deepcopy(self.network).to(device, dtype))
            self._copies[device, dtype] = found
        return found


def _is_placed(network: nn.Module, device: torch.device, dtype: torch.dtype) -> bool:
    tensors = (*network.parameters(), *network.buffers())
    return all(
        x.device == device and (x.dtype == dtype or not x.is_floating_point()) for x in tensors
    )


def of_network(network: nn.Module) -> SamModel:
    """Return a transformers model as sessions take it.

    Raises:
        StremnError: a model of another type.
    """
    check_transformers()
    kind = getattr(getattr(network, "config", None), "model_type", type(network).__name__)
    if kind not in FAMILIES:
        raise StremnError(
            f"Sessions run {', '.join(FAMILIES.values())} of transformers, got {kind}."
        )
    mean, std = HALF if kind == "sam3_tracker_video" else IMAGENET
    return SamModel(network.eval(), mean, std)


def check_transformers() -> None:
    """Refuse a transformers that is missing, or of a version that was not tested.

    Raises:
        MissingExtraError: it is not installed.
        StremnError: it is older or newer.
    """
    try:
        version = metadata.version("transformers")
    except metadata.PackageNotFoundError as error:
        raise MissingExtraError("transformers", "sam") from error
    found = tuple(int(part) for part in version.split(".")[:2])
    if not OLDEST <= found < BEFORE:
        low, high = (".".join(map(str, v)) for v in (OLDEST, BEFORE))
        raise StremnError(
            f"SAM models run on transformers {low} or later, before {high}; {version} is "
            f'installed. Install another one: pip install "transformers>={low},<{high}"'
        )


def load_sam(source: str | Path) -> SamModel:
    """Load a model by hub id, or from a folder that `save_pretrained` of transformers wrote.

    A hub id is `owner/name`, or `owner/name@REVISION` for a commit, tag or branch. Weights are read
    from safetensors alone, never from pickles.

    Raises:
        StremnError: no such model, no connection, damaged files, or a model of another type.
        MissingExtraError: transformers is not installed.
    """
    config = sam_config(source)
    import transformers

    bars = transformers.utils.logging
    shown = bars.is_progress_bar_enabled()
    bars.disable_progress_bar()  # one for a second of reading
    try:
        name, pinned = _where(source)
        kind = getattr(transformers, FAMILIES[config.model_type])
        network = kind.from_pretrained(name, **pinned, use_safetensors=True)
    except (OSError, ValueError, RuntimeError) as error:
        raise StremnError(
            f"The weights of {source} cannot be read ({_first_line(error)}). Download them again."
        ) from error
    finally:
        if shown:
            bars.enable_progress_bar()
    return of_network(network)


def sam_config(source: str | Path) -> Any:
    """Return the configuration of transformers of a model, without its weights.

    Raises:
        StremnError: nothing there, no connection to the hub, or a model of another type.
        MissingExtraError: transformers is not installed.
    """
    check_transformers()
    from transformers import AutoConfig, PretrainedConfig

    try:
        name, pinned = _where(source)
        raw, _ = PretrainedConfig.get_config_dict(name, **pinned)
        kind = str(raw.get("model_type", "unknown"))
        config: Any = AutoConfig.from_pretrained(name, **pinned) if kind in READ else None
    except (OSError, ValueError, TypeError) as error:
        raise StremnError(
            f"There is no model {str(source)!r}: it is not a folder of transformers, and not found "
            f"from the hub ({_first_line(error)})."
        ) from error
    if config is None:
        raise StremnError(
            f"{source} holds a model of type {kind!r}; of transformers' models "
            f"{', '.join(FAMILIES)} can be used."
        )
    return config.tracker_config if kind == WHOLE_SAM3 else config


def _where(source: str | Path) -> tuple[str, dict[str, str]]:
    """Return a folder or hub id as transformers takes it, and the revision that is pinned."""
    on_hub = None if Path(source).is_dir() else HubModel.parse(str(source))
    if on_hub is None or on_hub.revision is None:
        return str(source), {}
    return on_hub.id, {"revision": on_hub.revision}


def _first_line(error: Exception) -> str:
    return (
        str(error).strip().splitlines()[0].rstrip(".")
        if str(error).strip()
        else type(error).__name__
    )
