"""Count and measure the cost of a step by the length of the video (Appendix A)."""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from stremn.benchmarks.workload import SIZES, Workload, made_frame, made_labels, new_session
from stremn.networks.defaults import PAPER
from stremn.networks.model import STReMN

GAMMA = 5
"""STM keeps one frame in five (Appendix A)."""


def complexity(frame: int, slots: int, positions: int, key: int, value: int) -> dict[str, float]:
    """Count multiplications at frame T (Appendix A), of STM's growing memory and of this one.

    STM: (T / gamma) N^2 (Dk + Dv). STReMN: M N^2 (Dk + Dv) + (M + 1) N Dk^2 + M N^2 Dk, with M the
    slots that are taken and N the `positions` of a frame.
    """
    square = positions**2
    held = min(frame, slots)
    return {
        "growing": max(1.0, frame / GAMMA) * square * (key + value),
        "learned": held * square * (key + value)
        + (held + 1) * positions * key**2
        + held * square * key,
    }


def measure_growth(
    model: STReMN, plan: Workload, precision: str, size: str = "240p"
) -> dict[str, list[dict[str, float]]]:
    """Measure step time, memory and Appendix A's count by frame index, for both memories."""
    height, width = SIZES[size]
    positions = -(-height // 16) * -(-width // 16)
    rows: dict[str, list[dict[str, float]]] = {}
    for name, policy in (("learned", "learned"), ("growing", "append")):
        session = new_session(model, precision, height, policy=policy)
        session.step(made_frame(height, width), made_labels(height, width, 1))
        rows[name] = []
        for t in range(1, plan.growth_frames):
            frame = made_frame(height, width, t)
            start = time.perf_counter()
            session.step(frame)
            taken = time.perf_counter() - start
            count = complexity(
                t, PAPER.memory_slots, positions, model.widths["key"], model.widths["value"]
            )
            rows[name].append(
                {
                    "frame": t,
                    "ms": taken * 1e3,
                    "memory_bytes": session.memory_bytes,
                    "multiplications": count[name],
                }
            )
    return rows


@dataclass(frozen=True)
class Flatness:
    """Step times and resident memory over a long stream.

    Attributes:
        frames: their number.
        side: of the square frames, in pixels.
        first_ms: median step time of the first tenth.
        last_ms: median step time of the last tenth.
        first_resident: bytes of the process in memory after a tenth; 0 where unknown.
        last_resident: the same at the end.
        memory_bytes: every size that the full memory's state had; one if it never grows.
        ms: median step time of each hundredth of the stream.
        resident: bytes of the process in memory along the stream.
    """

    frames: int
    side: int
    first_ms: float
    last_ms: float
    first_resident: int
    last_resident: int
    memory_bytes: Sequence[int]
    ms: Sequence[float] = ()
    resident: Sequence[int] = ()

    @property
    def slowdown(self) -> float:
        """Relative change of the step time."""
        return self.last_ms / self.first_ms - 1

    @property
    def growth(self) -> float:
        """Relative change of resident memory after warm-up; 0 where it is unknown."""
        return self.last_resident / self.first_resident - 1 if self.first_resident else 0.0


def measure_flatness(model: STReMN, frames: int, side: int, precision: str) -> Flatness:
    """Stream `frames` frames of `side` x `side` pixels and compare a tenth of them at each end."""
    session = new_session(model, precision, side)
    loop = [made_frame(side, side, i) for i in range(40)]
    session.step(loop[0], made_labels(side, side, 1))
    ms, resident, sizes = [], [], set()
    tenth = max(1, frames // 10)
    for t in range(frames):
        start = time.perf_counter()
        session.step(loop[t % len(loop)])
        ms.append((time.perf_counter() - start) * 1e3)
        if t % max(1, tenth // 10) == 0 or t == frames - 1:
            resident.append(resident_bytes())
        if t >= session.memory_slots:
            sizes.add(session.memory_bytes)
    warm, chunk = len(resident) // 10, max(1, tenth // 10)
    return Flatness(
        frames,
        side,
        statistics.median(ms[:tenth]),
        statistics.median(ms[-tenth:]),
        resident[warm],
        resident[-1],
        tuple(sorted(sizes)),
        [statistics.median(ms[i : i + chunk]) for i in range(0, frames, chunk)],
        resident,
    )


def resident_bytes() -> int:
    """Return the resident bytes of this process; 0 where the system does not report them."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")
