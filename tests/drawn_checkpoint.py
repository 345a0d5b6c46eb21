"""A checkpoint of STM or STCN with drawn numbers: to compare networks by."""

import math
import zlib

import numpy as np
import torch
from torch import Tensor

from stremn.networks.conversion import COUNT, IMAGENET_STD, Official, layout
from stremn.networks.working_size import IMAGENET_MEAN


def drawn_checkpoint(family: Official, seed: int) -> dict[str, Tensor]:
    """Return a checkpoint of random numbers under the official names: to compare networks by.

    Each tensor has a generator of its own, seeded with `seed` and its name, so that the numbers
    depend on nothing else. They are scaled so that features, matches and logits are of order one,
    as those of trained weights are.
    """
    return {name: _drawn(name, shape, seed) for name, shape in sorted(layout(family).items())}


def _drawn(name: str, shape: tuple[int, ...], seed: int) -> Tensor:
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    leaf = name.rpartition(".")[2]
    if leaf in ("mean", "std"):
        numbers = np.reshape(IMAGENET_MEAN if leaf == "mean" else IMAGENET_STD, shape)
    elif leaf == COUNT:
        return torch.zeros(shape, dtype=torch.int64)
    elif leaf == "running_var":
        numbers = rng.uniform(0.7, 1.4, shape)
    elif leaf == "running_mean" or leaf == "bias":
        numbers = 0.05 * rng.standard_normal(shape)
    elif len(shape) == 1:  # of a BatchNorm
        numbers = rng.uniform(0.5, 0.9, shape)
    else:
        gain = 0.2 if ".pred" in name else 1.0
        numbers = gain * math.sqrt(2 / math.prod(shape[1:])) * rng.standard_normal(shape)
    return torch.from_numpy(np.asarray(numbers, np.float32))
