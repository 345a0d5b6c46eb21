"""Measure the machine and the cost of work: rates, times, arithmetic, bytes."""

from __future__ import annotations

import math
import platform
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from stremn.core.hardware import PRECISIONS, has_fast_bfloat16


@dataclass(frozen=True)
class Machine:
    """Where a run took place. Rates are the best of several tries, in units a second.

    `flops` has the precisions that were measured.
    """

    processor: str
    threads: int
    bfloat16: bool
    torch: str
    date: str
    flops: dict[str, float]
    bandwidth: float

    def floor(self, cost: Cost, precision: str) -> float:
        """Return the least seconds that `cost` takes on this machine."""
        return max(cost.flops / self.flops[precision], cost.bytes / self.bandwidth)


@dataclass(frozen=True)
class Cost:
    """Arithmetic (a multiplication and an addition are two) and bytes to and from memory."""

    flops: float = 0.0
    bytes: float = 0.0


def measure_machine(
    precisions: Sequence[str], *, size: int = 2048, megabytes: int = 256
) -> Machine:
    """Measure matrix products and convolutions, whichever is faster, and a copy.

    Where the hardware lacks a precision its figures take long: name only those that matter.
    """
    flops = {}
    for name in precisions:
        precision = PRECISIONS[name]
        a = torch.randn(size, size).to(precision)
        x, w = torch.randn(1, 256, 64, 64), torch.randn(256, 256, 3, 3)
        x = x.to(precision, memory_format=torch.channels_last)
        w = w.to(precision, memory_format=torch.channels_last)
        product = 2 * size**3 / best_of(partial(torch.matmul, a, a))
        convolution = best_of(partial(F.conv2d, x, w, padding=1))
        flops[name] = max(product, 2 * 64 * 64 * 256 * 256 * 9 / convolution)
    source = torch.ones(megabytes << 18)
    target = torch.empty_like(source)
    copied = 2 * source.nbytes / best_of(lambda: target.copy_(source))
    return Machine(
        processor=processor_name(),
        threads=torch.get_num_threads(),
        bfloat16=has_fast_bfloat16(torch.device("cpu")),
        torch=torch.__version__,
        date=datetime.now(UTC).strftime("%Y-%m-%d"),
        flops=flops,
        bandwidth=copied,
    )


def processor_name() -> str:
    """Return what the processor is called, with the matrix units that matter."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    flags = set(facts.get("flags", "").split())
    units = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in flags]
    cores = sum(line.startswith("processor") for line in lines)
    name, unit = facts.get("model name", platform.machine()), [*units, "no vector unit known"][0]
    return f"{name}, {cores} cores, {unit}"


@torch.inference_mode()
def best_of(run: Callable[[], object], tries: int = 8, enough: float = 4.0) -> float:
    """Return the shortest time of a run, in seconds, after one to warm up.

    There are `tries` of them, fewer if they take more than `enough` seconds in all.
    """
    run()
    best, began = math.inf, time.perf_counter()
    for _ in range(tries):
        start = time.perf_counter()
        run()
        end = time.perf_counter()
        best = min(best, end - start)
        if end - began > enough:
            break
    return best


def times(run: Callable[[], object], seconds: float, least: int = 5) -> list[float]:
    """Return how long `run` took, at least `least` times and until `seconds` are over."""
    run()
    taken: list[float] = []
    began = time.perf_counter()
    while len(taken) < least or time.perf_counter() - began < seconds:
        start = time.perf_counter()
        run()
        taken.append(time.perf_counter() - start)
    return taken


class CostCounter(TorchDispatchMode):
    """Counts the arithmetic of convolutions and products, and the bytes they touch."""

    def __init__(self) -> None:
        super().__init__()
        self.flops = 0.0
        self.bytes = 0.0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        """Count one operation."""
        packet = func.overloadpacket
        if packet not in flop_registry:
            with self:  # an operation made of others, as inference mode shows them
                parts = func.decompose(*args, **(kwargs or {}))
            if parts is not NotImplemented:
                return parts
        result = func(*args, **(kwargs or {}))
        if packet in flop_registry:
            self.flops += flop_registry[packet](*args, **(kwargs or {}), out_val=result)
            tensors = [x for x in (*args, result) if isinstance(x, Tensor)]
            self.bytes += sum(x.nbytes for x in tensors)
        return result


def cost_of(run: Callable[[], object]) -> Cost:
    """Return what convolutions and products in `run` cost: each reads and writes memory once."""
    with torch.no_grad(), CostCounter() as counter:
        run()
    return Cost(counter.flops, counter.bytes)
