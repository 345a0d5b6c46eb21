"""Long streams of hard pictures: numbers stay finite, ids stay given ones, nothing grows.

`python tests/streams.py` is a long campaign and prints its figures; the tests make a short one.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from stremn.networks.model import STReMN
from stremn.segmentation.reports import StepResult
from stremn.segmentation.sessions import SegmentationSession
from tiny_model import tiny_model

SIDE = 64
PRECISIONS = ("float32", "bfloat16")
Picture = np.ndarray


def noise(rng: np.random.Generator, _: int) -> Picture:
    return rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)


def plain(value: int) -> Callable[[np.random.Generator, int], Picture]:
    return lambda _, index: np.full((SIDE, SIDE, 3), value, np.uint8)


def flicker(_: np.random.Generator, index: int) -> Picture:
    return np.full((SIDE, SIDE, 3), 255 * (index % 2), np.uint8)


def cuts(rng: np.random.Generator, index: int) -> Picture:
    """Another flat scene every five frames."""
    scene = np.random.default_rng(index // 5)
    small = scene.integers(0, 256, (4, 4, 3), dtype=np.uint8)
    return small.repeat(SIDE // 4, 0).repeat(SIDE // 4, 1)


KINDS = {"noise": noise, "black": plain(0), "white": plain(255), "flicker": flicker, "cuts": cuts}


def objects(name: str) -> Picture:
    labels = np.zeros((SIDE, SIDE), np.uint16)
    if name == "full frame":
        labels[:] = 65_535
    elif name == "one pixel":
        labels[SIDE // 2, SIDE // 2] = 1
    else:
        labels[:] = 300
        labels[0, 0] = 7
    return labels


OBJECTS = ("one pixel", "full frame", "both")


@dataclass
class Usage:
    """What a process used at several moments: it must not grow after the first."""

    bytes: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    def note(self, memory_bytes: int) -> None:
        self.bytes.append(memory_bytes)
        self.files.append(_count("/proc/self/fd"))
        self.threads.append(_count("/proc/self/task"))
        pages = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[1])
        self.resident.append(pages * os.sysconf("SC_PAGE_SIZE"))

    def check(self) -> None:
        for name in ("bytes", "files", "threads"):
            values = getattr(self, name)
            assert len(set(values)) <= 1, f"{name} changed: {values}"

    def __str__(self) -> str:
        low, high = (round(x(self.resident) / 1e6) for x in (min, max))
        return (
            f"memory state {self.bytes[0]} bytes, {self.files[0]} files, {self.threads[0]} threads "
            f"at each of {len(self.bytes)} looks; resident {low} to {high} MB"
        )


def _count(folder: str) -> int:
    return sum(1 for _ in Path(folder).iterdir())


def check(result: StepResult) -> None:
    """Raise AssertionError unless a result's numbers and ids are what they may be."""
    assert np.isfinite(result.layer_probabilities).all(), "a probability is not finite"
    found = set(np.unique(result.labels).tolist())
    assert found <= {0, *result.ids}, f"ids that were not given: {found}"


def opened(model: STReMN, precision: str, **options: object) -> SegmentationSession:
    return SegmentationSession(
        model, device="cpu", size=SIDE, memory_slots=3, precision=precision, **options
    )  # type: ignore[arg-type]


def pictures(frames: int, scene: int = 100) -> Iterator[Picture]:
    """Frames of one kind after the other, `scene` of each in turn."""
    rng = np.random.default_rng(0)
    for index in range(frames):
        kind = list(KINDS.values())[index // scene % len(KINDS)]
        yield kind(rng, index)


def stream(model: STReMN, precision: str, given: str, frames: int, look: int) -> Usage:
    """Stream frames of all kinds; look at what is used every `look` frames."""
    session, usage = opened(model, precision, reach=0.5), Usage()
    for index, picture in enumerate(pictures(frames, max(1, look // 5))):
        check(session.step(picture, objects(given) if index == 0 else None))
        if index % look == look - 1:
            usage.note(session.memory_bytes)
    assert session.track is not None
    for name, x in session.track.state.tensors().items():
        assert not x.is_floating_point() or bool(x.isfinite().all()), name
    usage.check()
    return usage


def come_and_go(model: STReMN, precision: str, count: int, look: int) -> Usage:
    """Add an object and remove the one before, `count` times."""
    session, usage = opened(model, precision), Usage()
    rng = np.random.default_rng(1)
    for name in range(1, count + 1):
        labels = np.zeros((SIDE, SIDE), np.uint16)
        row, column = rng.integers(0, SIDE - 8, 2)
        labels[row : row + 8, column : column + 8] = name
        check(session.step(noise(rng, name), labels))
        if name > 1:
            session.remove_object(name - 1)
        assert session.ids == (name,)
        if name % look == 0:
            usage.note(session.memory_bytes)
    usage.check()
    return usage


def save_and_load(model: STReMN, precision: str, count: int, look: int) -> Usage:
    """Save, load and go on, `count` times, beside a session that is never saved."""
    session, other, usage = opened(model, precision), opened(model, precision), Usage()
    rng = np.random.default_rng(2)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "session.safetensors"
        for index in range(count):
            picture, given = noise(rng, index), objects("both") if index == 0 else None
            result, expected = session.step(picture, given), other.step(picture, given)
            check(result)
            assert np.array_equal(result.layer_probabilities, expected.layer_probabilities), (
                f"differs at {index}"
            )
            session.save(path)
            session = SegmentationSession.load(path, model, device="cpu")
            if index % look == look - 1:
                usage.note(session.memory_bytes)
    usage.check()
    return usage


def main() -> None:
    """Run all of it and print what was found."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--frames", type=int, default=10_000, help="for each number format")
    parser.add_argument("--objects", type=int, default=2_000)
    parser.add_argument("--saves", type=int, default=500)
    asked = parser.parse_args()
    model = tiny_model(summary=True)
    for precision in PRECISIONS:
        each = -(-asked.frames // len(OBJECTS))
        for given in OBJECTS:
            tell(
                f"{precision}, {each} frames, {given}",
                lambda p=precision, g=given, n=each: stream(model, p, g, n, max(1, n // 10)),
            )
    tell(
        f"{asked.objects} objects come and go",
        lambda: come_and_go(model, "float32", asked.objects, max(1, asked.objects // 10)),
    )
    tell(
        f"{asked.saves} saves and loads",
        lambda: save_and_load(model, "bfloat16", asked.saves, max(1, asked.saves // 10)),
    )


def tell(what: str, run: Callable[[], Usage]) -> None:
    began = time.monotonic()
    usage = run()
    print(f"{what}: no fault in {time.monotonic() - began:.0f} s; {usage}", flush=True)


if __name__ == "__main__":
    main()
