"""Store narrower values: the same masks, a smaller memory, a faster read. Not in the paper.

The decoder of `small` sees [what was read, v^Q] (Eq 5) through one 1x1 convolution alone, and what
was read is a weighted mean. So that convolution, W, can come before the memory:

    W (sum_m a_m v_m) = sum_m a_m (W v_m)

Values with one channel per output of W lose nothing. With fewer, W v_m is written in its principal
components on real frames, and only the largest are stored. v^Q is narrowed in the same way.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stremn.errors import StremnError
from stremn.networks.decoders import MaskDecoder
from stremn.networks.model import Projection, STReMN
from stremn.networks.presets import build_model
from stremn.networks.pretrained import Pretrained

Example = tuple[Float[Tensor, "1 3 height width"], Float[Tensor, "1 2 height width"]]
"""A frame in [0, 1], and the masks of the object and of the others in it, in [0, 1]."""

CHANGED = ("memory_value.", "query_value.", "decoder.pyramid.reduce.", "hint.")
"""How the names of weights begin that narrowing computes anew."""

SMALLEST = 1e-3
"""Directions of the new convolution below this share of its largest are not used for the hint."""


def narrowed(pretrained: Pretrained, values: int, examples: Iterable[Example]) -> Pretrained:
    """Return a copy of the model that stores values of `values` channels.

    Args:
        pretrained: a network whose decoder sees values through one 1x1 convolution: preset
            `small`, or another with `separable`.
        values: channels of a value, at most the outputs of that convolution (128 in `small`),
            where nothing is lost.
        examples: real frames with masks, of sides that are multiples of 16. A few dozen will do.

    Raises StremnError for other networks and widths.
    """
    model, config = pretrained.model, pretrained.config
    view = _only_view(model)
    most = min(config.value - 1, view.out_channels)
    if not 1 <= values <= most:
        raise StremnError(
            f"Values of {values} channels were asked for, expected 1 to {most}: these weights "
            f"store {config.value}, and the decoder makes {view.out_channels} of them."
        )
    old = view.weight.detach().double().flatten(1)
    of_memory, of_query = old.split(config.value, dim=1)
    memory_value, query_value = _values(model, examples)
    stored = _Components.of(memory_value @ of_memory.T, values)
    asked = _Components.of(query_value @ of_query.T, values)
    new = torch.cat([stored.directions, asked.directions], dim=1)

    config = config.model_copy(update={"value": values})
    narrow = build_model(config).to(view.weight)
    _copy_unchanged(model, narrow)
    with torch.no_grad():
        if model.memory_value is not None and narrow.memory_value is not None:
            _project(model.memory_value, stored, of_memory, narrow.memory_value)
        _project(model.query_value, asked, of_query, narrow.query_value)
        _set(_only_view(narrow), new, _bias(view) + stored.mean + asked.mean)
        if model.hint is not None and narrow.hint is not None:
            # The hint is added before the convolution, which must make of it what it made before.
            change = torch.linalg.pinv(new, rtol=SMALLEST) @ old
            last = model.hint.last
            _set(narrow.hint.last, change @ last.weight.double().flatten(1), change @ _bias(last))
    return Pretrained(narrow.eval(), config)


class _Components(NamedTuple):
    """Mean, and the largest principal components as columns."""

    mean: Float[Tensor, " o"]
    directions: Float[Tensor, "o r"]

    @classmethod
    def of(cls, seen: Float[Tensor, "n o"], number: int) -> _Components:
        """Return the components that samples vary most along."""
        _, directions = torch.linalg.eigh(torch.cov(seen.T))  # the smallest first
        return cls(seen.mean(0), directions.flip(1)[:, :number])


def _only_view(model: STReMN) -> nn.Conv2d:
    """Return the convolution through which alone the decoder sees values."""
    decoder = model.decoder
    if isinstance(decoder, MaskDecoder) and decoder.pyramid.from_reduced:
        return decoder.pyramid.reduce
    raise StremnError(
        "Only networks whose decoder sees values through one 1x1 convolution can be narrowed "
        "(preset small, or separable = true)."
    )


def _bias(conv: nn.Conv2d) -> Float[Tensor, " o"]:
    """Return the bias in float64; every convolution here has one."""
    assert conv.bias is not None
    return conv.bias.detach().double()


@torch.no_grad()
def _values(
    model: STReMN, examples: Iterable[Example]
) -> tuple[Float[Tensor, "n cv"], Float[Tensor, "n cv"]]:
    """Return the values that the memory would store and v^Q, at every position of the examples."""
    stored, asked = [], []
    for frame, masks in examples:
        query = model.encode_query(frame)
        stored.append(model.encode_memory(query, masks, 0).value.flatten(0, 2).double())
        asked.append(query.value.flatten(0, 2).double())
    if not stored:
        raise StremnError("No frames were given, expected at least one with its mask.")
    return torch.cat(stored), torch.cat(asked)


def _set(conv: nn.Conv2d, weight: Float[Tensor, "o i"], bias: Float[Tensor, " o"]) -> None:
    """Set a convolution; `weight` may have the kernel's positions among its columns."""
    conv.weight.copy_(weight.reshape(conv.weight.shape))
    assert conv.bias is not None
    conv.bias.copy_(bias)


def _copy_unchanged(source: STReMN, target: STReMN) -> None:
    """Copy all weights and buffers but those that narrowing computes anew.

    Raises StremnError for others whose shape depends on the width of values, as in fusion.
    """
    old, new = source.state_dict(), target.state_dict()
    other = [name for name in old if old[name].shape != new[name].shape]
    unknown = [name for name in other if not name.startswith(CHANGED)]
    if unknown:
        raise StremnError(
            f"{unknown[0]} depends on the width of values as well, and cannot be narrowed. Narrow "
            "the weights without it (fusion = none), and train it on top of them."
        )
    target.load_state_dict(old | {name: new[name] for name in other})


def _project(
    old: Projection, kept: _Components, through: Float[Tensor, "o cv"], new: Projection
) -> None:
    """Make the new projection compute the kept components of the old one's values."""
    change = kept.directions.T @ through
    bias = change @ _bias(old.conv) - kept.directions.T @ kept.mean
    _set(new.conv, change @ old.conv.weight.double().flatten(1), bias)
