"""The memory, its replacement rules, and writing by fusion (Section 3)."""

from stremn.memory.choices import Choice, UpdatePolicy, highest
from stremn.memory.matching import Matching
from stremn.memory.policies import POLICIES, build_policy
from stremn.memory.reading import read
from stremn.memory.state import MemoryState, Template
from stremn.memory.writing import Write, write

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
