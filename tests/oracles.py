"""The paper's equations as loops over float64 numbers: slow, and hard to get wrong."""

import math
from collections.abc import Sequence

import numpy as np

Array = np.ndarray


def cosine(a: Array, b: Array) -> float:
    """Cosine of the angle between two vectors."""
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    length = math.sqrt(sum(float(x) ** 2 for x in a)) * math.sqrt(sum(float(y) ** 2 for y in b))
    return dot / length


def similarity(new: Array, stored: Array) -> float:
    """Eq 1 for one slot: mean over p of the best cosine over q; both "h w cu"."""
    h, w, _ = new.shape
    total = 0.0
    for i in range(h):
        for j in range(w):
            best = -math.inf
            for y in range(stored.shape[0]):
                for x in range(stored.shape[1]):
                    best = max(best, cosine(new[i, j], stored[y, x]))
            total += best
    return total / (h * w)


def soft_choice(scores: Sequence[float], noise: Sequence[float], tau: float) -> list[float]:
    """Eq 2-3: the soft one-hot vector."""
    weights = [math.exp((s + g) / tau) for s, g in zip(scores, noise, strict=True)]
    return [weight / sum(weights) for weight in weights]


def hard_choice(soft: Sequence[float]) -> list[float]:
    """The one-hot vector of the largest entry, the first of equals."""
    best = max(range(len(soft)), key=lambda i: soft[i])
    return [1.0 if i == best else 0.0 for i in range(len(soft))]


def overwrite(slots: Array, new: Array, a: Sequence[float]) -> Array:
    """Eq 4: X_i = (1 - a_i) X_i + a_i X_t; `slots` "k ...", `new` "..."."""
    result = np.empty_like(slots, dtype=np.float64)
    for i in range(len(slots)):
        for place in np.ndindex(new.shape):
            result[i][place] = (1 - a[i]) * float(slots[i][place]) + a[i] * float(new[place])
    return result


def read(
    query: Array,
    keys: Array,
    values: Array,
    taken: Sequence[bool],
    scale: float,
    *,
    squared_l2: bool = False,
    top: int | None = None,
) -> Array:
    """Eq 5, left half: query "h w ck", keys "k h w ck", values "k h w cv" -> "h w cv".

    `squared_l2` compares by -|q - k|^2; of all matches only the `top` best count.
    """
    h, w, _ = query.shape
    result = np.zeros((h, w, values.shape[-1]))
    for i in range(h):
        for j in range(w):
            matches = []
            for slot, there in enumerate(taken):
                if not there:
                    continue
                for y in range(keys.shape[1]):
                    for x in range(keys.shape[2]):
                        pairs = list(zip(query[i, j], keys[slot, y, x], strict=True))
                        if squared_l2:
                            alike = -sum((float(a) - float(b)) ** 2 for a, b in pairs)
                        else:
                            alike = sum(float(a) * float(b) for a, b in pairs)
                        matches.append((scale * alike, values[slot, y, x]))
            best = sorted(matches, key=lambda match: -match[0])[:top]
            total = sum(math.exp(alike) for alike, _ in best)
            for alike, value in best:
                result[i, j] += math.exp(alike) / total * value
    return result


def aggregate(chances: Sequence[float]) -> list[float]:
    """STM's soft aggregation at one pixel: background and objects from each object's chance."""

    def bounded(p: float) -> float:
        return min(max(p, 1e-7), 1 - 1e-7)

    background = 1.0
    for p in chances:
        background *= 1 - p
    odds = [bounded(p) / (1 - bounded(p)) for p in (background, *chances)]
    return [each / sum(odds) for each in odds]


def attention_mass(query: Array, keys: Array) -> list[float]:
    """Mean over the query's positions of the share of Eq 5's weights that each slot gets."""
    shares = [0.0] * len(keys)
    flat = query.reshape(-1, query.shape[-1])
    for vector in flat:
        weights = [
            sum(math.exp(float(vector @ key) / math.sqrt(len(vector))) for key in slot)
            for slot in keys.reshape(len(keys), -1, keys.shape[-1])
        ]
        for i, weight in enumerate(weights):
            shares[i] += weight / sum(weights) / len(flat)
    return shares


# Rules as sentences about lists of frame numbers. The first frame is pinned in slot 0.


def rule_oldest(held: list[int], frame: int) -> int:
    """A: the slot, of those after the first, with the smallest frame number."""
    return min(range(1, len(held)), key=lambda i: held[i])


def rule_newest(held: list[int], frame: int) -> int:
    """B: the slot, of those after the first, with the largest frame number."""
    return max(range(1, len(held)), key=lambda i: held[i])


def rule_spread(held: list[int], frame: int) -> int:
    """The slot whose neighbors in time are closest to each other; the first of equals."""

    def gap(i: int) -> int:
        before = max((t for t in held if t < held[i]), default=held[i])
        after = min((t for t in held if t > held[i]), default=frame)
        return after - before

    return min(range(1, len(held)), key=gap)


def frames_held(rule, slots: int, frames: int) -> list[int]:
    """Frame in each slot after `frames` writes, the first pinned, under one of the rules above."""
    held: list[int] = []
    for frame in range(frames):
        if len(held) < slots:
            held.append(frame)
        else:
            held[rule(held, frame)] = frame
    return held


def given_up(shares: np.ndarray, layers: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Pixel by pixel: the share of the pixel's layer added to the background's, then none."""
    result = shares.copy()
    for row, column in np.ndindex(*where.shape):
        layer = layers[row, column]
        if where[row, column] and layer:
            result[0, row, column] += result[layer, row, column]
            result[layer, row, column] = 0
    return result
