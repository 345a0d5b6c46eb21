"""Section 3: the memory, its rules of replacement, and writing by fusion."""

from stremn.memory.operations import (
    Choice,
    Matching,
    MemoryState,
    Template,
    UpdatePolicy,
    Write,
    read,
    write,
)
from stremn.memory.policies import POLICIES, build_policy, highest

__all__ = [
    "POLICIES",
    "Choice",
    "Matching",
    "MemoryState",
    "Template",
    "UpdatePolicy",
    "Write",
    "build_policy",
    "highest",
    "read",
    "write",
]
