"""The replacement rules of a predictor, by name."""

from __future__ import annotations

from stremn.memory.choices import UpdatePolicy
from stremn.memory.policies import Append, Learned, RandomDrop, RandomSelect, build_policy


def memory_rule(name: str, *, training: bool = False, noise: float = 1.0) -> UpdatePolicy:
    """Return the rule called `name`: a policy's name, or "growing", which keeps every stack.

    In training the random rules draw new numbers for every clip; otherwise they repeat. `noise` is
    that of the rule "learned" in training.
    """
    if name == "learned":
        return Learned(noise=noise).eval()
    if name == "growing":
        return Append(every=1)
    if training and name == "random-drop":
        return RandomDrop(seed=None)
    if training and name == "random-select":
        return RandomSelect(seed=None)
    return build_policy(name)
