"""A read that moves whole templates: Eq 5 with affinities that are summed over displacements.

In Eq 5 every query position finds its own matches. When an object returns at another place, or a
camera pans back, all positions have moved by the same displacement, and most of them cannot be
matched: the query does not show what should be recalled. So here all pairs of positions with the
same displacement d vote together,

    C_k(d) = sum over p of q(p) . k_k(p + d),

and a query position p reads slot k at p + d with the affinity C_k(d). It is a softmax over the same
positions as in Eq 5 with one more of affinity 0 and value 0, which stands for "nothing recalled".
A slot is not read at a position that only displacements far below its best one lead to: see
`FAINTEST`. Not in the paper. Sums over displacements are correlations, computed through Fourier
transforms.
"""

from __future__ import annotations

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn import functional as F

from stremn.memory.choices import precise

FAINTEST = 1e-4
"""A slot's weight at a position, as a share of its best displacement's, that is taken for 0.

Rounding errors of Fourier transforms in float32 are not far below."""


def read_displaced(
    keys: Float[Tensor, "b k h w ck"],
    values: Float[Tensor, "b k h w cv"],
    vacant: Bool[Tensor, "b k"],
    query: Float[Tensor, "b h w ck"],
    *,
    fold: int,
    factor: Float[Tensor, "b 1 1 1"],
) -> Float[Tensor, "b h w cv"]:
    """Read templates that are moved as a whole (see the module).

    Args:
        keys: of the slots.
        values: of the slots.
        vacant: slots to leave out.
        query: key of the query.
        fold: a position holds `fold` x `fold` finer ones in its channels, at which displacements
            differ.
        factor: what votes are multiplied with.
    """
    query, keys, values = (unfolded(precise(x), fold) for x in (query, keys, values))
    votes = displacement_votes(query, keys) * factor  # b k 2h 2w
    best = votes.detach().flatten(2).amax(2)[..., None, None]
    weights = (votes - best).exp()
    counted = torch.cat([values, torch.ones_like(values[:, :, :1])], dim=2)
    moved, mass = moved_maps(weights, counted).split([values.shape[2], 1], dim=2)
    reached = (mass > FAINTEST) & ~vacant[:, :, None, None, None]
    mass = mass.clamp(min=FAINTEST)
    scores = (mass.log() + best[:, :, None]).masked_fill(~reached, -torch.inf)  # b k 1 h w
    nothing = torch.zeros_like(scores[:, :1])
    shares = torch.cat([scores, nothing], dim=1).softmax(1)[:, :-1]
    found = (shares * (moved / mass)).sum(1)
    return F.pixel_unshuffle(found, fold).permute(0, 2, 3, 1)


def displacement_votes(
    query: Float[Tensor, "b c h w"], keys: Float[Tensor, "b k c h w"]
) -> Float[Tensor, "b k 2*h 2*w"]:
    """Return C_k(d) = sum over p of q(p) . k_k(p + d); d is counted modulo 2 h and 2 w."""
    size = _room(query)
    spectrum = torch.fft.rfft2(query, s=size)[:, None].conj() * torch.fft.rfft2(keys, s=size)
    return torch.fft.irfft2(spectrum.sum(2), s=size)


def moved_maps(
    weights: Float[Tensor, "b k h2 w2"], maps: Float[Tensor, "b k c h w"]
) -> Float[Tensor, "b k c h w"]:
    """Sum over displacements d of weights(d) x maps(p + d), for each p; outside counts nothing."""
    size = _room(maps)
    moving = torch.fft.rfft2(weights, s=size)[:, :, None].conj()
    moved = torch.fft.irfft2(moving * torch.fft.rfft2(maps, s=size), s=size)
    return moved[..., : maps.shape[-2], : maps.shape[-1]]


def unfolded(maps: Float[Tensor, "*b h w c"], fold: int) -> Float[Tensor, "*b c2 h2 w2"]:
    """Bring channels first, and unfold each position into `fold` x `fold` finer ones."""
    return F.pixel_shuffle(maps.movedim(-1, -3), fold)


def _room(maps: Tensor) -> tuple[int, int]:
    """Twice the height and width: so nothing that is moved comes in on the other side."""
    return 2 * maps.shape[-2], 2 * maps.shape[-1]
