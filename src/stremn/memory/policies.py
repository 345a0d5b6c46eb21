"""Section 3.2 and Table 1: which slot makes room for a new template.

Every rule is an `UpdatePolicy`: (state, new template, evictable slots) -> `Choice`. `Learned` is
the paper's (Eq 1-3); rules A-F are its Table 1; `Append` is the growing memory of STM; the rest
are rules from elsewhere, for comparison. Rules are deterministic, given the state: random ones
draw from (seed, frame), so a run that stops and resumes makes the same choices.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.nn import functional as F

from stremn.errors import StremnError
from stremn.memory.operations import (
    Choice,
    Matching,
    MemoryState,
    Template,
    UpdatePolicy,
    affinity,
    blocks,
    comparable_keys,
    comparable_query,
)


def similarity(
    new: Float[Tensor, "b h w cu"], stored: Float[Tensor, "b k h w cu"]
) -> Float[Tensor, "b k"]:
    """Eq 1: mean over the new frame's positions p of the best cosine over a slot's positions q.

    One slot of one entry at a time, so that no more than one (h w) x (h w) block exists at once.
    """
    ours = F.normalize(new, dim=-1).flatten(1, 2)  # b p cu
    theirs = F.normalize(stored, dim=-1).flatten(2, 3)  # b k q cu
    best = [
        torch.stack([largest(one @ slot.T) for slot in slots])  # k p
        for one, slots in zip(ours, theirs, strict=True)
    ]
    return precise(torch.stack(best)).mean(-1)


def largest(x: Float[Tensor, "p q"]) -> Float[Tensor, " p"]:
    """Return the maximum over the last dimension.

    Bits of bfloat16 numbers, taken as integers, are in the order of the numbers unless all are
    negative; CPUs compare integers six times as fast as they do bfloat16.
    """
    if x.dtype == torch.bfloat16 and x.device.type == "cpu" and not x.requires_grad:
        best = x.view(torch.int16).amax(-1).view(torch.bfloat16)
        if not (best < 0).any():
            return best
    return x.amax(-1)


def precise(x: Tensor) -> Tensor:
    """Return x in float32 at least, for sums over many numbers and for comparing scores."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def highest(scores: Float[Tensor, "b k"], evictable: Bool[Tensor, "b k"]) -> Choice:
    """Choose the evictable slot with the highest score; ties go to the first, none if none."""
    scores = precise(scores)
    open_scores = scores.masked_fill(~evictable, -torch.inf)
    best = F.one_hot(open_scores.argmax(1), scores.shape[1]).to(scores.dtype)
    return Choice(best * evictable, scores.masked_fill(~evictable, torch.nan))


class Learned(nn.Module):
    """Eq 1-3: straight-through Gumbel-softmax over the similarity of learned update keys.

    The slot with the highest score is replaced; the update keys are learned, so "similar" means
    what training made of it. Noise is drawn in training mode, and at test time too if `noisy`.
    """

    def __init__(self, tau: float = 1.0, noisy: bool = False) -> None:
        super().__init__()
        self.tau = tau
        self.noisy = noisy

    def forward(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return a one-hot choice whose gradient is that of the soft one."""
        scores = similarity(new.compared, state.compared)
        return gumbel_choice(scores, evictable, self.tau, noisy=self.training or self.noisy)


def gumbel_choice(
    scores: Float[Tensor, "b k"], evictable: Bool[Tensor, "b k"], tau: float, *, noisy: bool
) -> Choice:
    """Eq 2-3: a_hard forward, a_soft backward."""
    noise = -torch.empty_like(scores).exponential_().log() if noisy else torch.zeros_like(scores)
    soft = ((scores + noise) / tau).masked_fill(~evictable, -torch.inf).softmax(1)
    soft = soft.masked_fill(~evictable.any(1, keepdim=True), 0.0)  # nothing open: nothing chosen
    hard = highest(soft.detach(), evictable).replace
    # soft - soft.detach() is exactly zero, so the forward value stays exactly one-hot.
    straight_through = hard + (soft - soft.detach())
    return Choice(straight_through, scores.detach().masked_fill(~evictable, torch.nan))


class Evidence(nn.Module):
    """An extension of the paper's rule: scores that see what a slot holds, not only likeness.

    To the similarity of Eq 1 it adds, through a small network, the slot's object mass and
    confidence, its age, and how closely its neighbours in time stand (see `slot_features`).
    """

    def __init__(self, hidden: int = 16, tau: float = 1.0, noisy: bool = False) -> None:
        super().__init__()
        self.score = nn.Sequential(nn.Linear(FEATURES, hidden), nn.ReLU(), nn.Linear(hidden, 1))
        self.tau = tau
        self.noisy = noisy

    def forward(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return a one-hot choice whose gradient is that of the soft one."""
        scores = self.scores(slot_features(state, new))
        return gumbel_choice(scores, evictable, self.tau, noisy=self.training or self.noisy)

    def scores(self, features: Float[Tensor, "b k f"]) -> Float[Tensor, "b k"]:
        """Score slots by their features; the highest is replaced."""
        precision = next(self.score.parameters()).dtype  # a session's may be bfloat16
        return precise(self.score(features.to(precision)).squeeze(-1))


class PlainEvidence(nn.Module):
    """`Evidence` for networks that were not trained with it: the same numbers, weighed by hand.

    A template gives way that is like the new one, shows little of the object, was made of an
    unsure mask, or stands close to others in time. Each weight is about one by the spread of its
    number, but for the object's mass: a template that shows next to none of it goes first.
    """

    WEIGHTS = (0.0, 2.0, 0.0, -2.0, -0.5, 0.0, -1.0, 0.0)
    """Of the columns of `slot_features`, in their order."""

    def forward(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot of the highest score."""
        features = slot_features(state, new)
        return highest(features @ features.new_tensor(self.WEIGHTS), evictable)


FEATURES = 8
"""Numbers that `slot_features` gives for each slot."""


def slot_features(state: MemoryState, new: Template) -> Float[Tensor, "b k f"]:
    """Describe each slot by numbers of order one, for `Evidence`.

    Similarity to the new template (Eq 1), and that less the mean over the taken slots; object
    mass (log) and its difference from the largest held; confidence; age and time between the
    neighbours, as shares of the time the memory spans; and whether it is the newest.
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


class Oldest:
    """Rule A: replace the oldest template (a queue)."""

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot written first."""
        return highest(-state.written_at.float(), evictable)


class Newest:
    """Rule B: replace the newest template (a stack)."""

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot written last."""
        return highest(state.written_at.float(), evictable)


def draw(like: Float[Tensor, "b n"], seed: int | None, frame: int) -> Float[Tensor, "b n"]:
    """Uniform numbers in [0, 1): fixed by (seed, frame) and equal for every entry, or fresh.

    Equal for every entry, so that an object's memory does not depend on its company. With `seed`
    None they come from PyTorch's generator, anew for each entry, as training wants.
    """
    if seed is None:
        return torch.rand_like(like)
    generator = torch.Generator().manual_seed(seed * 1_000_003 + frame)
    return torch.rand(like.shape[1], generator=generator).to(like).expand_as(like)


class RandomDrop:
    """Rule C: replace any template, each with the same chance."""

    def __init__(self, seed: int | None = 0) -> None:
        self.seed = seed

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return a random evictable slot."""
        return highest(draw(state.tally, self.seed, new.frame), evictable)


class RandomSelect:
    """Rule D: every past frame is kept with the same chance (reservoir sampling).

    With m slots that are not pinned, the n-th template offered is stored with chance m / n, in a
    random one of them; then each of the n is held with chance m / n.
    """

    def __init__(self, seed: int | None = 0) -> None:
        self.seed = seed

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return a random evictable slot, or none."""
        offered = state.seen + 1 - state.pinned.sum(1)
        ticket = draw(state.tally[:, :1], self.seed, new.frame)[:, 0] * offered
        place = evictable.cumsum(1) - 1  # 0, 1, ... over the evictable slots
        filling = state.vacant.any(1, keepdim=True)
        chosen = evictable & (filling | (place == ticket.long()[:, None]))
        return Choice(chosen.float(), place.float().masked_fill(~evictable, torch.nan))


class FirstAndLast:
    """Rule E: hold the pinned first template and the latest one, whatever the number of slots."""

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the slot of the latest template, or an empty one while there is none."""
        loose = ~state.pinned & ~state.vacant
        return highest(
            state.written_at.float(), torch.where(loose.any(1, keepdim=True), loose, evictable)
        )


class MostSimilar:
    """Rule F: replace the template that looks most like the new one.

    By Eq 1 on the keys of the read. On the learned update keys it would be `Learned` without noise.
    """

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot whose keys are most similar."""
        return highest(similarity(new.key, state.keys), evictable)


class Append:
    """STM's memory: the latest template and every n-th before it, for ever.

    For a memory with `growth`, or with more slots than the video needs. When it can neither grow
    nor find an empty slot, it goes on replacing the latest.
    """

    def __init__(self, every: int = 5) -> None:
        self.every = every

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the latest template's slot unless it is to be kept, else an empty one."""
        loose = ~state.pinned & ~state.vacant
        times = state.written_at.masked_fill(~loose, -1)
        latest = loose & (times == times.amax(1, keepdim=True))
        passing = latest & (times % self.every != 0)
        full = ~state.vacant.any(1, keepdim=True)
        chosen = torch.where(full, latest, passing)
        return highest(times.float(), torch.where(chosen.any(1, keepdim=True), chosen, evictable))


def time_gap(state: MemoryState, frame: int) -> Float[Tensor, "b k"]:
    """Frames between the two neighbours in time of each slot's template.

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


class Spread:
    """Replace the template whose neighbours in time are closest: what is kept stays even."""

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot with the smallest gap between its neighbours."""
        return highest(-time_gap(state, new.frame), evictable)


class EmptyFirst:
    """Replace a template that shows almost no object, else the newest.

    "Almost none" is less than `share` of the most object that any slot shows.
    """

    def __init__(self, share: float = 0.02) -> None:
        self.share = share

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot with almost no object that is newest, else the newest."""
        first = bare(state, self.share) * (new.frame + 1.0)
        return highest(state.written_at + first, evictable)


class SpreadOccupied:
    """Spread and empty-first together: a template with almost no object goes first, else spread.

    Bare frames keep no gap open: only after they are gone is what is left kept even in time.
    """

    def __init__(self, share: float = 0.02) -> None:
        self.share = share

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot with almost no object, or with the smallest gap."""
        gap = time_gap(state, new.frame)
        return highest(-gap + bare(state, self.share) * (new.frame + 1.0), evictable)


def bare(state: MemoryState, share: float) -> Bool[Tensor, "b k"]:
    """Which slots show less than `share` of the most object that any slot shows."""
    mass = state.evidence[..., 0]
    return mass < share * mass.amax(1, keepdim=True)


def attention_mass(state: MemoryState, new: Template) -> Float[Tensor, "b k"]:
    """Share of the new frame's attention (Eq 5) that each slot receives; rows sum to one.

    The same softmax as the read's, of the same sharpness, a block of positions at a time.
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
    """Share of each query position's attention that each slot of a batch entry receives."""
    keys = comparable_keys(state.keys[entry].flatten(0, 2), matching)
    found = affinity(query, keys, state.vacant[entry], matching.top)
    return precise(found).unflatten(-1, (state.slots, -1)).sum(-1)


class UpperConfidence:
    """RMem's rule: replace the lowest of recent attention plus a bonus for young slots.

    Relevance is a moving average of attention mass (0.8 new, 0.2 old); the bonus is
    1.5 sqrt(log(sum of ages) / (age + 8)). The newest template is never replaced.
    """

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot of least upper confidence bound."""
        relevance = 0.8 * attention_mass(state, new) + 0.2 * state.tally
        age = (new.frame - state.written_at).float().masked_fill(state.vacant, 0)
        total = age.sum(1, keepdim=True).clamp(min=1)
        bound = relevance + 1.5 * (total.log() / (age + 8)).sqrt()
        newest = state.written_at == state.written_at.amax(1, keepdim=True)
        guarded = evictable & ~newest
        allowed = torch.where(guarded.any(1, keepdim=True), guarded, evictable)
        choice = highest(-bound, allowed)
        return Choice(choice.replace, choice.scores, relevance)


class LeastUsed:
    """AFB-URR's and XMem's rule: replace the template with least attention per frame of life."""

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the evictable slot with the least mean attention."""
        usage = state.tally + attention_mass(state, new)
        age = (new.frame - state.written_at).float().clamp(min=1)
        choice = highest(-usage / age, evictable)
        return Choice(choice.replace, choice.scores, usage)


class Diversity:
    """READMem's rule: store only if some replacement raises the determinant of the Gram matrix."""

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the replacement with the largest Gram determinant, if larger than today's."""
        b, k = state.keys.shape[:2]
        held = F.normalize(state.keys.float().reshape(b, k, -1), dim=-1)
        fresh = F.normalize(new.key.float().reshape(b, 1, -1), dim=-1)
        # Vacant slots count as orthogonal to all, so that they do not zero the determinant.
        vacant = torch.diag_embed(state.vacant.float())
        today = held @ held.transpose(1, 2) + vacant
        cross = (held @ fresh.transpose(1, 2)).squeeze(-1)  # b k
        gains = []
        for i in range(k):
            swapped, row = today.clone(), cross.clone()
            row[:, i] = 1.0
            swapped[:, i, :] = row
            swapped[:, :, i] = row
            gains.append(torch.linalg.det(swapped))
        scores = torch.stack(gains, 1)
        filling = state.vacant.any(1, keepdim=True)
        better = (scores > torch.linalg.det(today)[:, None]) | filling
        return highest(scores, evictable & better)


POLICIES: dict[str, Callable[[int], UpdatePolicy]] = {
    "learned": lambda seed: Learned().eval(),
    "evidence": lambda seed: Evidence().eval(),
    "oldest": lambda seed: Oldest(),
    "newest": lambda seed: Newest(),
    "random-drop": RandomDrop,
    "random-select": RandomSelect,
    "first-and-last": lambda seed: FirstAndLast(),
    "most-similar": lambda seed: MostSimilar(),
    "append": lambda seed: Append(),
    "spread": lambda seed: Spread(),
    "empty-first": lambda seed: EmptyFirst(),
    "spread-occupied": lambda seed: SpreadOccupied(),
    "ucb": lambda seed: UpperConfidence(),
    "least-used": lambda seed: LeastUsed(),
    "diversity": lambda seed: Diversity(),
}
"""Every rule by name. Rules A-F of Table 1 are oldest, newest, random-drop, random-select,
first-and-last, most-similar."""


def build_policy(name: str, seed: int = 0) -> UpdatePolicy:
    """Return the rule called `name`; `seed` matters to the random ones alone."""
    if name not in POLICIES:
        raise StremnError(f"There is no policy {name!r}. Choose one of: {', '.join(POLICIES)}.")
    return POLICIES[name](seed)
