"""Templates and memories of random numbers, for tests of the memory and its policies."""

import torch
from torch import Tensor

from stremn.memory.choices import UpdatePolicy
from stremn.memory.state import MemoryState, Template
from stremn.memory.writing import write

GRID = (2, 3)
KEY, VALUE, UPDATE = 4, 5, 3


def templates(
    count: int, batch: int = 1, *, seed: int = 0, dtype: torch.dtype = torch.float32
) -> list[Template]:
    """Templates of frames 0, 1, ...; entry i of a batch is the same whatever the batch size."""
    made = []
    for frame in range(count):
        rows = [_row(frame, entry, seed, dtype) for entry in range(batch)]
        key, value, update, query, evidence = (
            torch.stack(parts) for parts in zip(*rows, strict=True)
        )
        made.append(Template(key, value, update, evidence.float(), frame, query))
    return made


def _row(frame: int, entry: int, seed: int, dtype: torch.dtype) -> list[Tensor]:
    generator = torch.Generator().manual_seed(frame * 1009 + entry * 31 + seed * 77_003)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    maps = [noise(*GRID, channels) for channels in (KEY, VALUE, UPDATE, KEY)]
    return [*maps, torch.rand(2, generator=generator, dtype=torch.float64)]


def entry_of(template: Template, entry: int) -> Template:
    """The template of one batch entry alone."""
    one = slice(entry, entry + 1)
    query = None if template.query_key is None else template.query_key[one]
    return Template(
        template.key[one],
        template.value[one],
        template.update_key[one],
        template.evidence[one],
        template.frame,
        query,
    )


def empty(
    slots: int, batch: int = 1, *, growth: int = 0, dtype: torch.dtype = torch.float32
) -> MemoryState:
    """An empty memory that fits `templates`."""
    return MemoryState.empty(
        batch, slots, GRID, key=KEY, value=VALUE, update_key=UPDATE, growth=growth, dtype=dtype
    )


def remember(
    policy: UpdatePolicy, slots: int, frames: int, *, batch: int = 1, growth: int = 0, seed: int = 0
) -> MemoryState:
    """The memory after `frames` writes, the first pinned."""
    state = empty(slots, batch, growth=growth)
    for template in templates(frames, batch, seed=seed):
        state, _ = write(state, template, policy, pin=template.frame == 0)
    return state
