"""Section 3: a space-time memory with a fixed number of slots.

A *template* is what one frame leaves behind: its key, its value and its update key. The memory
holds `k` templates, one a slot. `write` (Eq 4) stores a new template in the slot that an update
policy names; `read` (Eq 5) matches a query with every position of every slot.

The paper stores the feature map X and projects all K of them again at every step. Here the
projections are stored. Projections are convolutions, applied to each template by itself, and
Eq 4 with a one-hot vector picks whole templates; so projecting before or after Eq 4 is the same,
forward and backward, and a step projects one frame, not K + 1.

Letters: b batch entries (one an object), k slots, h w positions (stride 16), ck cv cu channels.
Channels come last, so that a read is two plain matrix products.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Literal, Protocol

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn import functional as F

from stremn.errors import StremnError

EVIDENCE = 2
"""Numbers of evidence kept with a template: object mass and confidence, both in [0, 1]."""

NEVER = -1
"""`written_at` of an empty slot."""

Scale = Literal["sqrt", "none", "log"]
"""What the products of Eq 5 are multiplied with: see `sharpness`."""

REFERENCE = 768
"""Positions at which the scales "log" and "sqrt" are equal: three slots of 16 x 16."""

Similarity = Literal["dot", "squared-l2"]
"""What a query and a key are compared by: q . k, or -|q - k|^2."""


@dataclass(frozen=True)
class Matching:
    """How a read compares queries with keys: part of a network, the same for every frame.

    `similarity` "dot" is that of Eq 5 and STM, "squared-l2" that of STCN. `scale` is what the
    similarities are multiplied with (see `sharpness`). Of each query position's similarities only
    the `top` largest enter its softmax; None: all.
    """

    similarity: Similarity = "dot"
    scale: Scale = "sqrt"
    top: int | None = None


EQUATION_5 = Matching()
"""Eq 5 as the paper's network reads."""


@dataclass(frozen=True)
class Template:
    """One projected frame, about to be stored.

    `frame` is its index in the video. `evidence` says how much object the frame shows (mean of
    the soft mask) and how sure the model is of it. `query_key` is the same frame's read key,
    there for rules that ask which slots the frame attends to, as the read with `matching` would.
    """

    key: Float[Tensor, "b h w ck"]
    value: Float[Tensor, "b h w cv"]
    update_key: Float[Tensor, "b h w cu"]
    evidence: Float[Tensor, "b e"]
    frame: int
    query_key: Float[Tensor, "b h w ck"] | None = None
    matching: Matching = EQUATION_5

    @property
    def maps(self) -> tuple[Tensor, Tensor, Tensor]:
        """Key, value and update key."""
        return self.key, self.value, self.update_key

    @property
    def compared(self) -> Float[Tensor, "b h w c"]:
        """What Eq 1 compares: the update key, or the key where a network has no update keys."""
        return self.update_key if self.update_key.shape[-1] else self.key


@dataclass(frozen=True)
class MemoryState:
    """All that the memory remembers: tensors of a size fixed at creation.

    K lives here, not in the weights: weights trained with one K run with any other.
    `growth` is the number of slots added when all are taken: 0, the paper's memory, never grows.
    `filled` bounds the leading slots that can hold a template; those behind it are empty.
    """

    keys: Float[Tensor, "b k h w ck"]
    values: Float[Tensor, "b k h w cv"]
    update_keys: Float[Tensor, "b k h w cu"]
    evidence: Float[Tensor, "b k e"]
    written_at: Int[Tensor, "b k"]
    pinned: Bool[Tensor, "b k"]
    seen: Int[Tensor, " b"]
    tally: Float[Tensor, "b k"]
    filled: int = 0
    growth: int = 0

    @classmethod
    def empty(
        cls,
        batch: int,
        slots: int,
        grid: tuple[int, int],
        *,
        key: int,
        value: int,
        update_key: int,
        growth: int = 0,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str = "cpu",
    ) -> MemoryState:
        """Return a memory of `slots` empty slots for `batch` entries on an h x w `grid`."""
        if slots < 1:
            raise ValueError(f"A memory needs at least one slot, got slots={slots}.")

        def maps(channels: int) -> Tensor:
            return torch.zeros(batch, slots, *grid, channels, dtype=dtype, device=device)

        return cls(
            keys=maps(key),
            values=maps(value),
            update_keys=maps(update_key),
            evidence=torch.zeros(batch, slots, EVIDENCE, device=device),
            written_at=torch.full((batch, slots), NEVER, dtype=torch.int64, device=device),
            pinned=torch.zeros(batch, slots, dtype=torch.bool, device=device),
            seen=torch.zeros(batch, dtype=torch.int64, device=device),
            tally=torch.zeros(batch, slots, device=device),
            growth=growth,
        )

    @property
    def batch(self) -> int:
        """Number of batch entries."""
        return self.keys.shape[0]

    @property
    def slots(self) -> int:
        """Number of slots, K."""
        return self.keys.shape[1]

    @property
    def vacant(self) -> Bool[Tensor, "b k"]:
        """Which slots hold nothing yet."""
        return self.written_at == NEVER

    @property
    def compared(self) -> Float[Tensor, "b k h w c"]:
        """What Eq 1 compares: the update keys, or the keys where a network has none."""
        return self.update_keys if self.update_keys.shape[-1] else self.keys

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors: the same before and after any number of writes."""
        return sum(tensor.nbytes for tensor in self.tensors().values())

    def tensors(self) -> dict[str, Tensor]:
        """Return the tensors by name, as they are saved."""
        named = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in named.items() if isinstance(value, Tensor)}

    def select(self, entries: Int[Tensor, " n"]) -> MemoryState:
        """Return the memory of some batch entries, in the order given."""
        chosen: dict[str, Any] = {name: x[entries] for name, x in self.tensors().items()}
        return replace(self, **chosen)

    def entry(self, index: int) -> MemoryState:
        """Return the memory of one batch entry: views, not copies."""
        own: dict[str, Any] = {name: x[index : index + 1] for name, x in self.tensors().items()}
        return replace(self, **own)

    def holds(self, frame: int, entries: Sequence[int]) -> bool:
        """Whether some slot of the batch `entries` holds a frame."""
        return bool((self.written_at[list(entries)] == frame).any())

    def with_pinned(self, frame: int, entries: Sequence[int], pinned: bool) -> MemoryState:
        """Return the memory with what it holds of a frame pinned in some entries, or no longer."""
        flags = self.pinned.clone()
        for entry in entries:
            flags[entry, self.written_at[entry] == frame] = pinned
        return replace(self, pinned=flags)

    def grown(self, slots: int) -> MemoryState:
        """Return the same memory with `slots` more empty slots."""
        extra = MemoryState.empty(
            self.batch,
            slots,
            (self.keys.shape[2], self.keys.shape[3]),
            key=self.keys.shape[-1],
            value=self.values.shape[-1],
            update_key=self.update_keys.shape[-1],
            dtype=self.keys.dtype,
            device=self.keys.device,
        ).tensors()
        longer: dict[str, Any] = {
            name: torch.cat([x, extra[name]], 1)
            for name, x in self.tensors().items()
            if name != "seen"  # of entries, not of slots
        }
        return replace(self, **longer)


def check_memory(
    tensors: Mapping[str, Tensor], entries: int, grid: tuple[int, int], *, latest: int, filled: int
) -> None:
    """Check tensors from a file before a `MemoryState` is made of them.

    Args:
        tensors: by the names of `MemoryState.tensors`.
        entries: number of batch entries.
        grid: positions (h, w) of a template.
        latest: index of the last frame that can be in a slot.
        filled: as in `MemoryState`.

    Raises:
        ValueError: a tensor is missing, too many, or of another shape or type; a frame, flag or
            number that no memory can hold.
    """
    empty = MemoryState.empty(1, 1, (1, 1), key=1, value=1, update_key=1).tensors()
    other = sorted(tensors.keys() ^ empty.keys())
    if other:
        raise ValueError(f"the memory has no {other[0]}, or it belongs to nothing")
    keys = tensors["keys"]
    if keys.dim() != 5 or keys.shape[1] < 1:
        raise ValueError(f"the memory's keys have the shape {tuple(keys.shape)}")
    for name, example in empty.items():
        found = tensors[name]
        shape = (entries, *[keys.shape[1], *grid][: example.dim() - 1])
        if example.dim() == 5 or name == "evidence":
            shape = (*shape[: example.dim() - 1], EVIDENCE if name == "evidence" else -1)
        wrong = found.dim() != example.dim() or any(
            side not in (-1, real) for side, real in zip(shape, found.shape, strict=True)
        )
        kind = keys.dtype if example.dim() == 5 else example.dtype
        if wrong or found.dtype != kind:
            raise ValueError(f"{name} is {found.dtype} of shape {tuple(found.shape)}")
    _check_slots(tensors["written_at"], tensors["pinned"], tensors["seen"], latest, filled)
    if not bool(((tensors["evidence"] >= -0.01) & (tensors["evidence"] <= 1.01)).all()):
        raise ValueError("evidence is not in [0, 1]")


def _check_slots(
    written_at: Tensor, pinned: Tensor, seen: Tensor, latest: int, filled: int
) -> None:
    held = written_at != NEVER
    if not 0 <= filled <= held.shape[1] or bool(held[:, filled:].any()):
        raise ValueError(f"slots behind the first {filled} hold templates")
    if bool((written_at < NEVER).any()) or bool((written_at > latest).any()):
        raise ValueError(f"a slot holds a frame before 0 or after {latest}")
    for row in written_at.tolist():
        frames = [frame for frame in row if frame != NEVER]
        if len(set(frames)) < len(frames):
            raise ValueError("two slots hold one frame")
    if bool((pinned & ~held).any()):
        raise ValueError("an empty slot is pinned")
    if bool((seen < held.sum(1)).any()):
        raise ValueError("fewer templates were seen than are held")


def concat(states: Sequence[MemoryState]) -> MemoryState:
    """Join memories along the batch, adding empty slots where one has fewer than another."""
    slots = max(state.slots for state in states)
    even = [s.grown(slots - s.slots) if s.slots < slots else s for s in states]
    parts = [state.tensors() for state in even]
    joined: dict[str, Any] = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    return replace(even[0], **joined, filled=max(state.filled for state in even))


@dataclass(frozen=True)
class Choice:
    """What a policy decided: `replace` is one-hot ("this slot") or all zero ("do not store").

    `scores` are the numbers it compared, NaN where a slot could not be chosen; `tally` is the
    policy's own count for every slot, for the memory to keep until the next write.
    """

    replace: Float[Tensor, "b k"]
    scores: Float[Tensor, "b k"]
    tally: Float[Tensor, "b k"] | None = None


class UpdatePolicy(Protocol):
    """Section 3.2: names the slot that makes room for a new template.

    `evictable` marks the slots open to the policy: the first empty one alone while there is one,
    else all that are not pinned. A policy may leave slots empty on purpose, as "first and
    last" and "append" do, or decline to store (all zero); it must never name a pinned slot.
    """

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return which slot of each entry gives way to `new`."""
        ...


class Write(Protocol):
    """Stores a template: `write` below, or what is put in its place (Appendix B)."""

    def __call__(
        self,
        state: MemoryState,
        new: Template,
        policy: UpdatePolicy,
        *,
        pin: bool | Bool[Tensor, " b"] = False,
        reuse: bool = False,
    ) -> tuple[MemoryState, Choice]:
        """Return the new state and the choice made."""
        ...


def checked(choice: Choice, state: MemoryState, evictable: Bool[Tensor, "b k"]) -> Choice:
    """Return a rule's choice if the memory can carry it out.

    Raises:
        StremnError: it is no `Choice` of the memory's shape, a row names more than one slot, holds
            anything but 0 and 1, or names a pinned slot.
    """
    made = "The replacement rule"
    if not isinstance(choice, Choice):
        raise StremnError(f"{made} must return a Choice, got {type(choice).__name__}.")
    shape = tuple(evictable.shape)
    for name in ("replace", "scores", "tally"):
        value = getattr(choice, name)
        if value is None and name == "tally":
            continue
        if not isinstance(value, Tensor) or tuple(value.shape) != shape:
            found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
            raise StremnError(
                f"{made} must return {name} of shape {shape} (objects, slots), got {found}."
            )
    a = choice.replace
    sound = ((a == 0) | (a == 1)).all() & (a.sum(1) <= 1).all()
    pinned = ((a > 0.5) & state.pinned).any()
    if bool(sound & ~pinned):  # one question, since a GPU is waited for at each
        return choice
    if not bool(sound):
        raise StremnError(
            f"{made} must name at most one slot of each object, with 1 there and 0 elsewhere."
        )
    raise StremnError(f"{made} named a pinned slot. Choose among the evictable ones.")


class CheckedPolicy:
    """A rule whose choices are checked before the memory changes; `then` is called after that."""

    def __init__(self, policy: UpdatePolicy, then: Callable[[], None] | None = None) -> None:
        self.policy, self.then = policy, then

    def __call__(self, state: MemoryState, new: Template, evictable: Bool[Tensor, "b k"]) -> Choice:
        """Return the rule's choice.

        Raises:
            StremnError: the memory cannot carry it out (see `checked`).
        """
        choice = checked(self.policy(state, new, evictable), state, evictable)
        if self.then is not None:
            self.then()
        return choice


def open_slots(state: MemoryState) -> Bool[Tensor, "b k"]:
    """Return the slots a policy may choose: the first empty one, or all that are not pinned."""
    vacant = state.vacant
    first_vacant = vacant & (vacant.cumsum(1) == 1)
    full = ~vacant.any(1, keepdim=True)
    return first_vacant | (full & ~state.pinned)


def write(
    state: MemoryState,
    new: Template,
    policy: UpdatePolicy,
    *,
    pin: bool | Bool[Tensor, " b"] = False,
    reuse: bool = False,
) -> tuple[MemoryState, Choice]:
    """Eq 4: X_i = (1 - a_i) X_i + a_i X_t, with the one-hot vector a that `policy` gives.

    A template written with `pin` (for all entries or some) is stored whatever the policy says, and
    never replaced. A frame that the memory already holds is replaced by itself: the same frame
    under a better mask. Returns the new state and the choice made.

    With `reuse` the caller gives `state` away: the template is stored in its tensors instead of
    in copies of them, and `state` must not be used again. That is for callers that hold one state
    and need no gradient.
    """
    if state.growth and state.filled == state.slots:
        state = state.grown(state.growth)
    choice = policy(state, new, open_slots(state))
    pinning = torch.as_tensor(pin, device=state.pinned.device)  # one for all, or "b"
    choice = replace(choice, replace=_insist(choice.replace, state, new.frame, pinning))
    a = choice.replace.detach() if reuse else choice.replace
    store = _store if reuse else _overwrite
    written = a.detach() > 0.5
    tally = state.tally if choice.tally is None else choice.tally
    after = replace(
        state,
        keys=store(state.keys, new.key, a),
        values=store(state.values, new.value, a),
        update_keys=store(state.update_keys, new.update_key, a),
        evidence=store(state.evidence, new.evidence, a),
        written_at=state.written_at.masked_fill(written, new.frame),
        pinned=state.pinned | (written & pinning[..., None]),
        seen=state.seen + 1,
        tally=tally.masked_fill(written, 0.0),
    )
    if state.filled < state.slots:  # slots fill in order, though not at every write
        after = replace(after, filled=int((~after.vacant).sum(1).max()))
    return after, choice


def _insist(
    a: Float[Tensor, "b k"], state: MemoryState, frame: int, pin: Bool[Tensor, "..."]
) -> Float[Tensor, "b k"]:
    """Return `a`, but for what is not the policy's to decide (see `write`).

    Where it declines to store what is to be pinned, the latest template open to it gives way.
    """
    same = state.written_at == frame
    open_ = open_slots(state)
    latest = state.written_at.masked_fill(~open_, NEVER - 1).argmax(1)
    otherwise = F.one_hot(latest, state.slots).bool() & open_
    known = same.any(1)
    declined = pin & (a.detach().sum(1) < 0.5)
    settled = same | (otherwise & ~known[:, None])
    return torch.where((known | declined)[:, None], settled.to(a.dtype), a)


def _overwrite(slots: Tensor, new: Tensor, a: Float[Tensor, "b k"]) -> Tensor:
    """Eq 4 on one stored tensor; `slots` "b k ...", `new` "b ..."."""
    a = a.reshape(*a.shape, *[1] * (slots.dim() - 2))
    new = new.unsqueeze(1).to(slots.dtype)
    if not a.requires_grad:  # the same result, in one pass, with nothing kept for backward
        return torch.where(a > 0.5, new, slots)
    a = a.to(slots.dtype)
    return (1 - a) * slots + a * new


def _store(slots: Tensor, new: Tensor, a: Float[Tensor, "b k"]) -> Tensor:
    """`_overwrite` in place: only what changes is touched."""
    for entry, slot in (a > 0.5).nonzero().tolist():
        slots[entry, slot].copy_(new[entry])
    return slots


def read(
    state: MemoryState, query_key: Float[Tensor, "b h w ck"], *, matching: Matching = EQUATION_5
) -> Float[Tensor, "b h w cv"]:
    """Eq 5, left half: softmax over all positions of all slots, then the weighted sum of values.

    The query may be of a part of the frame: every position is read by itself. `matching` says how
    queries and keys are compared. An entry without any template reads zeros; sessions and rollouts
    refuse to get there.
    """
    h, w = query_key.shape[1:3]
    used = max(state.filled, 1)
    vacant = state.vacant[:, :used]
    query = comparable_query(state, query_key, matching)
    partly = vacant.any(1).tolist()
    found = [  # entry by entry, so that slices of the memory are never copied
        _read_entry(
            query[i],
            comparable_keys(state.keys[i, :used].flatten(0, 2), matching),  # (k h w) ck
            state.values[i, :used].flatten(0, 2),
            vacant[i] if partly[i] else None,
            matching.top,
        )
        for i in range(state.batch)
    ]
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
        query = F.pad(2 * _precise(query), (0, 1), value=-1.0)
    query = (query * sharpness(state, matching.scale)).flatten(1, 2)
    return query if matching.similarity == "squared-l2" else query.to(state.keys.dtype)


def comparable_keys(keys: Float[Tensor, "*b m ck"], matching: Matching) -> Float[Tensor, "*b m c"]:
    """Return keys for products with `comparable_query`."""
    if matching.similarity == "dot":
        return keys
    keys = _precise(keys)
    return torch.cat([keys, keys.square().sum(-1, keepdim=True)], dim=-1)


def _precise(x: Tensor) -> Tensor:
    """Return x in float32 at least: a small difference of large squares needs the digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def sharpness(state: MemoryState, scale: Scale) -> Float[Tensor, "b 1 1 1"]:
    """What the products of query and keys are multiplied with before the softmax of Eq 5.

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


def _read_entry(
    query: Float[Tensor, "q c"],
    keys: Float[Tensor, "m c"],
    values: Float[Tensor, "m cv"],
    vacant: Bool[Tensor, " k"] | None,
    top: int | None,
) -> Float[Tensor, "q cv"]:
    if top is not None and top < len(keys):
        return torch.cat([_read_top(block, keys, values, vacant, top) for block in blocks(query)])
    return torch.cat(
        [affinity(block, keys, vacant).to(values.dtype) @ values for block in blocks(query)]
    )


def _read_top(
    query: Float[Tensor, "q c"],
    keys: Float[Tensor, "m c"],
    values: Float[Tensor, "m cv"],
    vacant: Bool[Tensor, " k"] | None,
    top: int,
) -> Float[Tensor, "q cv"]:
    """Sum the `top` values with the weights of their keys: no product with all the others."""
    best = _products(query, keys, vacant).topk(top, sorted=False)
    weights = best.values.softmax(-1).nan_to_num(0.0).to(values.dtype)
    return F.embedding_bag(best.indices, values, mode="sum", per_sample_weights=weights)


def blocks(query: Float[Tensor, "q ck"]) -> tuple[Float[Tensor, "_ ck"], ...]:
    """Split query positions into blocks of at most `ROWS`."""
    return query.tensor_split(-(-query.shape[0] // ROWS))


def affinity(
    query: Float[Tensor, "*b q c"],
    keys: Float[Tensor, "*b m c"],
    vacant: Bool[Tensor, "*b k"] | None,
    top: int | None = None,
) -> Float[Tensor, "*b q m"]:
    """Softmax of query-key products over the m = k h w memory positions; vacant slots get 0.

    With `top`, over the so many largest alone; all others get 0.
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
    """Products of every query with every key; minus infinity in vacant slots."""
    products = query @ keys.transpose(-1, -2)
    if vacant is None:
        return products
    hidden = vacant.repeat_interleave(keys.shape[-2] // vacant.shape[-1], dim=-1).unsqueeze(-2)
    return products.masked_fill(hidden, -torch.inf)
