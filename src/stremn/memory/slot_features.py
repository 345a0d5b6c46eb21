"""Features of slots for replacement rules: time, object mass, attention."""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from stremn.memory.choices import precise
from stremn.memory.matching import Matching
from stremn.memory.reading import affinity, blocks, comparable_keys, comparable_query
from stremn.memory.similarity import similarity
from stremn.memory.state import MemoryState, Template

FEATURES = 8
"""Numbers that `slot_features` gives for each slot."""


def slot_features(state: MemoryState, new: Template) -> Float[Tensor, "b k f"]:
    """Describe each slot by numbers of order one, for `Evidence`.

    Similarity to the new template (Eq 1), and that less the mean over the taken slots; object
    mass (log) and its difference from the largest held; confidence; age and time between the
    neighbors, as shares of the time the memory spans; and whether it is the newest.
    """
    taken = ~state.vacant
    alike = similarity(new.compared, state.compared)
    mean_alike = (alike * taken).sum(1, keepdim=True) / taken.sum(1, keepdim=True).clamp(min=1)
    mass = (state.evidence[..., 0] + 1e-4).log() / 4
    most = mass.masked_fill(~taken, -torch.inf).amax(1, keepdim=True).nan_to_num(0, 0, 0)
    age = (new.frame - state.written_at).float()
    span = age.masked_fill(~taken, 1).amax(1, keepdim=True).clamp(min=1)
    columns = [
        alike,
        alike - mean_alike,
        mass,
        mass - most,
        state.evidence[..., 1],
        age / span,
        time_gap(state, new.frame) / span,
        (state.written_at == state.written_at.amax(1, keepdim=True)).float(),
    ]
    return torch.stack([column * taken for column in columns], dim=-1)


def time_gap(state: MemoryState, frame: int) -> Float[Tensor, "b k"]:
    """Return the frames between the two neighbors in time of each slot's template.

    The template before the first is the first itself; after the newest comes the new `frame`.
    """
    times = state.written_at
    order = times.argsort(1)
    held = times.gather(1, order)
    later = torch.cat([held[:, 1:], torch.zeros_like(held[:, :1]) + frame], 1)
    earlier = torch.cat([held[:, :1], held[:, :-1]], 1)
    earlier = torch.where(earlier < 0, held, earlier)
    gaps = (later - earlier).float()
    return torch.zeros_like(gaps).scatter(1, order, gaps)


def bare(state: MemoryState, share: float) -> Bool[Tensor, "b k"]:
    """Return which slots show less than `share` of the largest object mass in any slot."""
    mass = state.evidence[..., 0]
    return mass < share * mass.amax(1, keepdim=True)


@torch.no_grad()
def attention_mass(state: MemoryState, new: Template) -> Float[Tensor, "b k"]:
    """Return the share of the new frame's attention (Eq 5) on each slot; rows sum to one.

    The same softmax as the read's, of the same sharpness, a block of positions at a time. Without
    gradients: a memory keeps sums of these shares, and would keep their graphs with them.
    """
    key = new.key if new.query_key is None else new.query_key
    query, how = comparable_query(state, key, new.matching), new.matching
    return torch.stack(
        [
            torch.cat([slot_shares(x, state, entry, how) for x in blocks(query[entry])]).mean(0)
            for entry in range(state.batch)
        ]
    )


def slot_shares(
    query: Float[Tensor, "q c"], state: MemoryState, entry: int, matching: Matching
) -> Float[Tensor, "q k"]:
    """Return the share of each query position's attention on each slot of a batch entry."""
    keys = comparable_keys(state.keys[entry].flatten(0, 2), matching)
    found = affinity(query, keys, state.vacant[entry], matching.top)
    return precise(found).unflatten(-1, (state.slots, -1)).sum(-1)
