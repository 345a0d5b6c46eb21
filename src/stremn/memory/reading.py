"""Eq 5: read the memory by matching a query with every position of every slot."""

from __future__ import annotations

import math

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from stremn.memory.choices import precise
from stremn.memory.displacements import read_displaced
from stremn.memory.matching import EQUATION_5, REFERENCE, Matching, Scale
from stremn.memory.state import MemoryState


def read(
    state: MemoryState, query_key: Float[Tensor, "b h w ck"], *, matching: Matching = EQUATION_5
) -> Float[Tensor, "b h w cv"]:
    """Read the memory (Eq 5, left half): softmax over all positions, weighted sum of values.

    The query may be of a part of the frame: every position is read by itself. `matching` says how
    queries and keys are compared. An entry without any template reads zeros; sessions and roll-outs
    never do this. The pooling "displacements" needs the query of a whole frame.
    """
    h, w = query_key.shape[1:3]
    used = max(state.filled, 1)
    vacant = state.vacant[:, :used]
    if matching.pooling == "displacements":
        fold = matching.fold
        return read_displaced(
            state.keys[:, :used],
            state.values[:, :used],
            vacant,
            query_key,
            fold=fold,
            # Sums over h w fold^2 positions of ck / fold^2 channels, of which most cancel.
            factor=sharpness(state, matching.scale) * (h * w) ** -0.5,
        )
    query = comparable_query(state, query_key, matching)
    partly = vacant.any(1).tolist()
    seen: list[_Seen] = []
    found = []
    for i in range(state.batch):  # entry by entry, so that slices of the memory are never copied
        hidden = vacant[i] if partly[i] else None
        values = state.values[i, :used].flatten(0, 2)
        top = matching.top
        if top is not None and top < len(values):
            matches = _known(seen, state, query, i)
            if matches is None:
                keys = comparable_keys(state.keys[i, :used].flatten(0, 2), matching)
                matches = _best_matches(query[i], keys, hidden, top)
                seen.append((i, matches))
            found.append(_weighted(matches, values))
        else:
            keys = comparable_keys(state.keys[i, :used].flatten(0, 2), matching)  # (k h w) ck
            found.append(_read_all(query[i], keys, values, hidden))
    return torch.stack(found).unflatten(1, (h, w))


def comparable_query(
    state: MemoryState, query_key: Float[Tensor, "b h w ck"], matching: Matching
) -> Float[Tensor, "b q c"]:
    """Return query positions whose products with `comparable_keys` are what the softmax is over.

    -|q - k|^2 = 2 q . k - |k|^2 - |q|^2, and a softmax over k does not see |q|^2: with one more
    channel, -1 here and |k|^2 there, the squared distance is a product too.
    """
    query = query_key
    if matching.similarity == "squared-l2":
        query = F.pad(2 * precise(query), (0, 1), value=-1.0)
    query = (query * sharpness(state, matching.scale)).flatten(1, 2)
    return query if matching.similarity == "squared-l2" else query.to(state.keys.dtype)


def comparable_keys(keys: Float[Tensor, "*b m ck"], matching: Matching) -> Float[Tensor, "*b m c"]:
    """Return keys for products with `comparable_query`."""
    if matching.similarity == "dot":
        return keys
    keys = precise(keys)
    return torch.cat([keys, keys.square().sum(-1, keepdim=True)], dim=-1)


def sharpness(state: MemoryState, scale: Scale) -> Float[Tensor, "b 1 1 1"]:
    """Return the factor of the products of query and keys before the softmax of Eq 5.

    "none" is 1, Eq 5 to the letter; "sqrt" is 1 / sqrt(ck), as in STM. "log" is
    log(n) / log(REFERENCE) / sqrt(ck) for an entry that holds n positions. A softmax over more
    positions is flatter: a network trained with a small memory of small frames reads a blur from
    a large one. Multiplied by log n its entropy stays about the same (Chiang and Cholak, ACL 2022).
    """
    b, _, h, w, ck = state.keys.shape
    dtype = torch.promote_types(state.keys.dtype, torch.float32)
    factor = torch.full(
        (b,), 1.0 if scale == "none" else ck**-0.5, dtype=dtype, device=state.keys.device
    )
    if scale == "log":
        held = (~state.vacant).sum(1).clamp(min=1) * (h * w)
        factor = factor * held.to(dtype).log() / math.log(REFERENCE)
    return factor[:, None, None, None]


ROWS = 192
"""Query positions read at a time. Their affinities then stay in a CPU's cache from the products
through the softmax to the weighted sum; a whole frame's would go out to memory and back."""


def _read_all(
    query: Float[Tensor, "q c"],
    keys: Float[Tensor, "m c"],
    values: Float[Tensor, "m cv"],
    vacant: Bool[Tensor, " k"] | None,
) -> Float[Tensor, "q cv"]:
    return torch.cat(
        [affinity(block, keys, vacant).to(values.dtype) @ values for block in blocks(query)]
    )


_Matches = tuple[Tensor, Tensor]
"""Of each query position: places of the keys that match best, and their weights."""

_Seen = tuple[int, _Matches]


def _best_matches(
    query: Float[Tensor, "q c"],
    keys: Float[Tensor, "m c"],
    vacant: Bool[Tensor, " k"] | None,
    top: int,
) -> _Matches:
    best = [_products(block, keys, vacant).topk(top, sorted=False) for block in blocks(query)]
    weights = torch.cat([part.values.softmax(-1).nan_to_num(0.0) for part in best])
    return torch.cat([part.indices for part in best]), weights


def _weighted(matches: _Matches, values: Float[Tensor, "m cv"]) -> Float[Tensor, "q cv"]:
    """Sum the best matches' values: no product with all the others."""
    places, weights = matches
    weights = weights.to(values.dtype)
    return F.embedding_bag(places, values, mode="sum", per_sample_weights=weights)


def _known(
    seen: list[_Seen], state: MemoryState, query: Float[Tensor, "b q c"], entry: int
) -> _Matches | None:
    """Return the matches of an earlier entry with the same keys and query, if there is one.

    STCN's keys are of frames alone, so that objects which hold the same frames share their matches.
    """
    for other, matches in seen:
        if (
            torch.equal(state.written_at[entry], state.written_at[other])
            and torch.equal(query[entry], query[other])
            and torch.equal(state.keys[entry, : state.filled], state.keys[other, : state.filled])
        ):
            return matches
    return None


def blocks(query: Float[Tensor, "q ck"]) -> tuple[Float[Tensor, "_ ck"], ...]:
    """Split query positions into blocks of at most `ROWS`."""
    return query.tensor_split(-(-query.shape[0] // ROWS))


def affinity(
    query: Float[Tensor, "*b q c"],
    keys: Float[Tensor, "*b m c"],
    vacant: Bool[Tensor, "*b k"] | None,
    top: int | None = None,
) -> Float[Tensor, "*b q m"]:
    """Return the softmax of query-key products over the m = k h w positions; vacant slots get 0.

    With `top`, only over the `top` largest products; all others get 0.
    """
    products = _products(query, keys, vacant)
    if top is None or top >= keys.shape[-2]:
        weights = products.softmax(-1)
        return weights if vacant is None else weights.nan_to_num(0.0)
    best, places = products.topk(top)
    weights = best.softmax(-1).nan_to_num(0.0)
    return torch.zeros_like(products).scatter(-1, places, weights)


def _products(
    query: Float[Tensor, "*b q c"],
    keys: Float[Tensor, "*b m c"],
    vacant: Bool[Tensor, "*b k"] | None,
) -> Float[Tensor, "*b q m"]:
    """Return products of every query with every key; minus infinity in vacant slots."""
    products = query @ keys.transpose(-1, -2)
    if vacant is None:
        return products
    hidden = vacant.repeat_interleave(keys.shape[-2] // vacant.shape[-1], dim=-1).unsqueeze(-2)
    return products.masked_fill(hidden, -torch.inf)
