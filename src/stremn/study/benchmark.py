"""Appendix A, measured: what a step costs, stage by stage, and against the length of the video.

Every figure stands beside what the machine allows: its matrix product rate and its memory
bandwidth are measured in the same run, and the floor of a stage is the larger of its arithmetic
by the one and its bytes by the other.
"""

from __future__ import annotations

import json
import logging
import math
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from stremn import memory, segmentation
from stremn.errors import StremnError
from stremn.hardware import PRECISIONS, has_fast_bfloat16
from stremn.inference import for_inference
from stremn.media.files import make_folder, write_whole
from stremn.media.results import FrameResult, ResultWriter, write_video
from stremn.media.video import Frame, open_frames
from stremn.memory import MemoryState
from stremn.model import STReMN
from stremn.pipeline import segment_video
from stremn.postprocess import remove_distant_regions
from stremn.pretrained import SHIPPED, load_model
from stremn.segmentation import PRESETS, build_model
from stremn.sessions import SegmentationSession
from stremn.working_size import WorkingSize

logger = logging.getLogger(__name__)

Picture = UInt8[np.ndarray, "height width 3"]
Labels = UInt8[np.ndarray, "height width"]
Part = Literal["stages", "sweeps", "growth", "flat", "pipeline", "compile"]
PARTS: tuple[Part, ...] = ("stages", "sweeps", "growth", "flat", "pipeline", "compile")
SIZES = {"240p": (240, 427), "480p": (480, 854), "1080p": (1080, 1920)}
GAMMA = 5
"""STM keeps one frame in five (Appendix A)."""


@dataclass(frozen=True)
class Plan:
    """How much to measure. `seconds` is the time for one figure, after three runs to warm up."""

    seconds: float = 2.0
    objects: tuple[int, ...] = (1, 2, 5, 10)
    slots: tuple[int, ...] = (1, 2, 4, 6, 8, 12, 16, 20)
    sizes: tuple[str, ...] = ("240p", "480p", "1080p")
    models: tuple[str, ...] = ("small", "resnet50")
    growth_frames: int = 200
    flat_frames: int = 10_000
    flat_side: int = 128
    pipeline_frames: int = 60


QUICK = Plan(
    seconds=0.7,
    objects=(1, 5),
    slots=(1, 6, 20),
    sizes=("240p", "480p"),
    growth_frames=100,
    flat_frames=1000,
    pipeline_frames=30,
)
TINY = Plan(0.02, (1, 2), (1, 2), ("240p",), ("small",), 8, 30, 64, 4)
"""For tests."""


# ------------------------------------------------------------------------------ the machine


@dataclass(frozen=True)
class Machine:
    """Where a run took place. Rates are the best of several tries, in units a second."""

    processor: str
    threads: int
    bfloat16: bool
    torch: str
    date: str
    flops: dict[str, float]
    bandwidth: float

    def floor(self, cost: Cost, precision: str) -> float:
        """Seconds that `cost` takes at least on this machine."""
        return max(cost.flops / self.flops[precision], cost.bytes / self.bandwidth)


@dataclass(frozen=True)
class Cost:
    """Arithmetic (a multiplication and an addition are two) and bytes to and from memory."""

    flops: float = 0.0
    bytes: float = 0.0


def measure_machine(size: int = 2048, megabytes: int = 256) -> Machine:
    """Measure matrix products and convolutions, whichever is faster, and a copy."""
    flops = {}
    for name in ("float32", "bfloat16"):
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
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {key.strip(): value.strip() for key, _, value in (x.partition(":") for x in lines)}
    flags = set(facts.get("flags", "").split())
    units = [name for name in ("amx_bf16", "avx512_bf16", "avx512f", "avx2") if name in flags]
    cores = sum(line.startswith("processor") for line in lines)
    name, unit = facts.get("model name", platform.machine()), [*units, "no vector unit known"][0]
    return f"{name}, {cores} cores, {unit}"


@torch.inference_mode()
def best_of(run: Callable[[], object], tries: int = 8) -> float:
    """Return the shortest of `tries` times, in seconds, after one to warm up."""
    return min(times(run, 0.0, tries))


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


# ------------------------------------------------------------------------------ what is run


def made_frame(height: int, width: int, index: int = 0) -> Picture:
    """Return a frame of a drawn video: discs that move over a fixed texture."""
    texture = np.random.default_rng(0).integers(0, 256, (height // 8 + 1, width // 8 + 1, 3))
    image = cv2.resize(texture.astype(np.uint8), (width, height), interpolation=cv2.INTER_CUBIC)
    shown = made_labels(height, width, 10, index) > 0
    return np.where(shown[..., None], image // 2, image).astype(np.uint8)


def made_labels(height: int, width: int, objects: int, index: int = 0) -> Labels:
    """Return the label map of `made_frame`: `objects` discs, the first the largest."""
    labels = np.zeros((height, width), np.uint8)
    for i in range(objects, 0, -1):
        angle = 2 * math.pi * (i / objects + index / 400)
        x = round(width * (0.5 + 0.3 * math.cos(angle)))
        y = round(height * (0.5 + 0.3 * math.sin(angle)))
        cv2.circle(labels, (x, y), max(2, height // (5 + i)), i, -1)
    return labels


def ready_model(name: str) -> STReMN:
    """Return a preset with the weights that come with it, else random ones.

    A step costs the same with either; results cost more to write where masks are noise.
    """
    model = load_model(name).model if name in SHIPPED else build_model(PRESETS[name])
    return model.eval()


def full_session(
    model: STReMN, frame: Picture, objects: int, slots: int, precision: str, size: int
) -> SegmentationSession:
    """Return a session whose memory is full: what a step costs from then on."""
    session = SegmentationSession(
        model, device="cpu", precision=precision, memory_slots=slots, size=size
    )
    session.step(frame, made_labels(frame.shape[0], frame.shape[1], objects))
    assert session.track is not None  # it has just been given objects
    session.track = replace(session.track, state=_filled(session.track.state))
    session.frame = slots
    return session


def _filled(state: MemoryState) -> MemoryState:
    """Fill every slot with the first template, a little changed, as if frames had passed."""

    def spread(x: Tensor) -> Tensor:
        first = x[:, :1].expand_as(x)
        return first + 0.1 * first.float().std().to(x) * torch.randn_like(x)

    return replace(
        state,
        keys=spread(state.keys),
        values=spread(state.values),
        update_keys=spread(state.update_keys),
        evidence=state.evidence[:, :1].expand_as(state.evidence).clone(),
        written_at=torch.arange(state.slots).expand(state.batch, -1).clone(),
        filled=state.slots,
    )


# ------------------------------------------------------------------------------ stages


@dataclass(frozen=True)
class Stage:
    """One stage of a step: times in milliseconds, cost, floor in ms, and time by floor."""

    name: str
    median: float
    best: float
    cost: Cost
    floor: float
    ratio: float | None
    note: str = ""


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


def counted(run: Callable[[], object]) -> Cost:
    """Return what convolutions and products in `run` cost: each reads and writes memory once."""
    with torch.no_grad(), CostCounter() as counter:
        run()
    return Cost(counter.flops, counter.bytes)


@torch.inference_mode()
def measure_stages(
    model: STReMN, machine: Machine, plan: Plan, *, precision: str, frame_size: tuple[int, int]
) -> list[Stage]:
    """Measure each stage of a step of one object with a full memory of six slots."""
    height, width = frame_size
    frame = made_frame(height, width)
    session = full_session(model, frame, 1, 6, precision, min(frame_size))
    found = _Measured(machine, plan, precision)
    _measure_model(found, session, frame)
    step = statistics.median(times(lambda: session.step(frame), plan.seconds)) * 1e3
    inside = sum(stage.median for stage in found.stages)
    found.stages.append(
        Stage("labels, report, checks", max(0.0, step - inside), 0.0, Cost(), 0.0, None)
    )
    found.stages.append(_whole_step(found.stages, session, frame, plan))
    _measure_files(found, frame, session)
    return found.stages


class _Measured:
    """Collects stages."""

    def __init__(self, machine: Machine, plan: Plan, precision: str) -> None:
        self.machine, self.plan, self.precision = machine, plan, precision
        self.stages: list[Stage] = []

    def add(self, name: str, run: Callable[[], Any], cost: Cost, note: str = "") -> None:
        taken = [seconds * 1e3 for seconds in times(run, self.plan.seconds / 2)]
        floor = self.machine.floor(cost, self.precision) * 1e3
        middle = statistics.median(taken)
        ratio = middle / floor if floor else None
        self.stages.append(Stage(name, middle, min(taken), cost, floor, ratio, note))


def _measure_model(found: _Measured, session: SegmentationSession, frame: Picture) -> None:
    assert session.track is not None  # full
    plain, fast, track = session.model, for_inference(session.model), session.track
    size = WorkingSize.of(frame.shape[0], frame.shape[1], session.size)
    inner = size.inward_image(frame)
    pixels = session.as_tensor(inner)
    query = fast.encode_query(pixels)
    each = query.take(track.video)
    state, area = track.state, pixels.shape[-2] * pixels.shape[-1]
    found_values = memory.read(state, each.key, scale=fast.scale)
    y = torch.cat([found_values, each.value.to(found_values.dtype)], -1).permute(0, 3, 1, 2)
    coarse = fast.decoder(y, each.skips)
    shares = segmentation.shares(segmentation.upsampled(coarse, pixels)[None])
    masks = segmentation.object_masks(shares, track).to(query.stem.dtype)
    template = fast.encode_memory(each, masks, session.frame)

    def to_tensor() -> Tensor:
        return session.as_tensor(size.inward_image(frame))

    found.add("resize and convert", to_tensor, Cost(0, 2 * frame.nbytes + 2 * pixels.nbytes))
    run = partial(fast.encode_query, pixels)
    found.add("query encoder", run, counted(partial(plain.encode_query, pixels)))
    read = Cost(
        2 * state.batch * each.key[0, ..., 0].numel() * state.keys[0, ..., 0].numel()
        * (state.keys.shape[-1] + state.values.shape[-1]),
        state.keys.nbytes + state.values.nbytes + found_values.nbytes,
    )  # fmt: skip
    found.add("read (Eq 5)", lambda: memory.read(state, each.key, scale=fast.scale), read)
    decode = partial(fast.decoder, y, each.skips)
    found.add("decoder", decode, counted(partial(plain.decoder, y, each.skips)))
    found.add(
        "aggregate",
        lambda: segmentation.object_masks(
            segmentation.shares(segmentation.upsampled(coarse, pixels)[None]), track
        ),
        Cost(0, coarse.nbytes + (1 + 2 + 2) * 4 * area),
    )
    encode = partial(fast.encode_memory, each, masks, 0)
    found.add("memory encoder", encode, counted(partial(plain.encode_memory, each, masks, 0)))
    similarity = Cost(
        2 * template.update_key[..., 0].numel() * state.update_keys.numel() / state.batch,
        state.update_keys.nbytes + 2 * (template.key.nbytes + template.value.nbytes),
    )
    found.add(
        "write (Eq 1-4)",
        lambda: memory.write(state, template, session.policy, reuse=True),
        similarity,
    )


def _whole_step(
    stages: Sequence[Stage], session: SegmentationSession, frame: Picture, plan: Plan
) -> Stage:
    taken = [seconds * 1e3 for seconds in times(lambda: session.step(frame), plan.seconds)]
    cost = Cost(sum(s.cost.flops for s in stages), sum(s.cost.bytes for s in stages))
    floor = sum(stage.floor for stage in stages)
    middle = statistics.median(taken)
    return Stage("whole step", middle, min(taken), cost, floor, middle / floor)


def _measure_files(found: _Measured, frame: Picture, session: SegmentationSession) -> None:
    result = session.step(frame)
    moved = np.roll(result.labels, 5, axis=1)
    found.add(
        "distant-region filter (optional)",
        lambda: remove_distant_regions(result.labels, moved),
        Cost(0, 2 * result.labels.nbytes),
        "one pass over labels; connected components are counted as one pass",
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        height, width = frame.shape[0], frame.shape[1]
        write_video(path, (made_frame(height, width, i) for i in range(12)), 25)
        began = time.perf_counter()
        with open_frames(path) as source:
            count = sum(1 for _ in source)
        decode = (time.perf_counter() - began) * 1e3 / count
        found.stages.append(Stage("decode H.264", decode, decode, Cost(), 0.0, None))
        with ResultWriter(Path(folder) / "out", fps=25) as writer:
            numbers = iter(range(10**6))

            def write() -> None:
                i = next(numbers)
                writer.write(FrameResult(Frame(i, f"{i:05d}", frame), result.labels, {}))

            found.add("encode PNG and overlay", write, Cost(), "libx264 and zlib set the pace")
        png = next((Path(folder) / "out" / "masks").glob("*.png")).read_bytes()
        target = Path(folder) / "copy.png"
        found.add("disk", lambda: target.write_bytes(png), Cost(0, len(png)), "one small file")


# ------------------------------------------------------------------------------ sweeps


def measure_step(
    model: STReMN,
    plan: Plan,
    *,
    objects: int = 1,
    slots: int = 6,
    precision: str = "bfloat16",
    size: str = "480p",
) -> dict[str, Any]:
    """Measure a whole step with a full memory."""
    height, width = SIZES[size]
    frame = made_frame(height, width)
    session = full_session(model, frame, objects, slots, precision, height)
    taken = times(lambda: session.step(frame), plan.seconds, 3)
    return {
        "size": size,
        "objects": objects,
        "slots": slots,
        "precision": precision,
        "ms": statistics.median(taken) * 1e3,
        "best_ms": min(taken) * 1e3,
        "memory_bytes": session.memory_bytes,
    }


def measure_sweeps(model: STReMN, plan: Plan, precision: str) -> list[dict[str, Any]]:
    """Measure steps against objects, slots, frame size and precision, one at a time."""
    step = partial(measure_step, model, plan)
    other = "float32" if precision == "bfloat16" else "bfloat16"
    rows = [step(objects=n, precision=precision) for n in plan.objects]
    rows += [step(slots=k, precision=precision) for k in plan.slots]
    rows += [step(size=size, precision=precision) for size in plan.sizes]
    return [*rows, step(precision=other)]


# ------------------------------------------------------------------------------ length of the video


def complexity(
    frame: int, slots: int, positions: int, key: int, value: int, gamma: int = GAMMA
) -> dict[str, float]:
    """Appendix A: multiplications at a frame, of STM's growing memory and of STReMN's.

    STM: (T / gamma) N^2 (Dk + Dv). STReMN: M N^2 (Dk + Dv) + (M + 1) N Dk^2 + M N^2 Dk, with M the
    slots that are taken; ours keeps projections, so that (M + 1) is 1 here.
    """
    square = positions**2
    held = min(frame, slots)
    return {
        "growing": max(1.0, frame / gamma) * square * (key + value),
        "learned": held * square * (key + value)
        + (held + 1) * positions * key**2
        + held * square * key,
        "ours": held * square * (key + value) + positions * key**2 + held * square * key,
    }


def measure_growth(
    model: STReMN, plan: Plan, precision: str, size: str = "240p"
) -> dict[str, list[dict[str, float]]]:
    """Step time, memory and Appendix A's count against the frame index, for both memories."""
    height, width = SIZES[size]
    positions = -(-height // 16) * -(-width // 16)
    rows: dict[str, list[dict[str, float]]] = {}
    for name, policy in (("learned", "learned"), ("growing", "append")):
        session = SegmentationSession(
            model, device="cpu", precision=precision, memory_slots=6, policy=policy, size=height
        )
        session.step(made_frame(height, width), made_labels(height, width, 1))
        rows[name] = []
        for t in range(1, plan.growth_frames):
            frame = made_frame(height, width, t)
            start = time.perf_counter()
            session.step(frame)
            taken = time.perf_counter() - start
            count = complexity(t, 6, positions, model.widths["key"], model.widths["value"])
            rows[name].append(
                {
                    "frame": t,
                    "ms": taken * 1e3,
                    "memory_bytes": session.memory_bytes,
                    "multiplications": count[name],
                }
            )
    return rows


@dataclass
class Flatness:
    """A long stream: medians of the first and last tenth, and what the process holds."""

    frames: int
    side: int
    first_ms: float
    last_ms: float
    first_resident: int
    last_resident: int
    memory_bytes: tuple[int, ...]
    ms: list[float] = field(default_factory=list)
    resident: list[int] = field(default_factory=list)

    @property
    def slowdown(self) -> float:
        """Relative change of the step time."""
        return self.last_ms / self.first_ms - 1

    @property
    def growth(self) -> float:
        """Relative change of resident memory after warm-up."""
        return self.last_resident / self.first_resident - 1


def measure_flatness(
    model: STReMN, frames: int, side: int, precision: str = "bfloat16"
) -> Flatness:
    """Stream `frames` frames of `side` x `side` pixels; a tenth of them at each end is compared."""
    session = SegmentationSession(model, device="cpu", precision=precision, size=side)
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
    """Bytes of this process in memory now; 0 where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * 4096


# ------------------------------------------------------------------------------ whole pipeline


def measure_pipeline(
    model: STReMN, plan: Plan, precision: str, size: str = "480p"
) -> dict[str, float]:
    """Frames a second from a video file to masks and overlay, beside the model's own rate."""
    height, width = SIZES[size]
    frames = [made_frame(height, width, i) for i in range(plan.pipeline_frames)]
    labels = made_labels(height, width, 1)

    def session() -> SegmentationSession:
        return SegmentationSession(model, device="cpu", precision=precision, size=height)

    alone = session()
    alone.step(frames[0], labels)
    began = time.perf_counter()
    for frame in frames[1:]:
        alone.step(frame)
    own = (len(frames) - 1) / (time.perf_counter() - began)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, frames, 25)
        with open_frames(path) as source, ResultWriter(Path(folder) / "out", fps=25) as writer:
            summary = segment_video(source, session(), _first(labels), writer)
    rate = summary.frames_per_second
    return {"model_fps": own, "pipeline_fps": rate, "share": rate / own}


def _first(labels: Labels) -> Callable[[Frame], Any]:
    from stremn.media.masks import label_map

    given = label_map(labels)
    return lambda frame: given if frame.index == 0 else None


def measure_compiled(model: STReMN, plan: Plan, precision: str) -> dict[str, Any]:
    """The query encoder with and without `torch.compile`; seconds of compiling too.

    An error (no C++ compiler, say) is reported, not raised.
    """
    height, width = SIZES["480p"]
    session = full_session(model, made_frame(height, width), 1, 2, precision, height)
    fast = for_inference(session.model)
    pixels = session.as_tensor(
        WorkingSize.of(height, width, height).inward_image(made_frame(height, width))
    )
    with torch.inference_mode():
        eager = statistics.median(times(lambda: session.model.encode_query(pixels), plan.seconds))
        fused = statistics.median(times(lambda: fast.encode_query(pixels), plan.seconds))
    row: dict[str, Any] = {"eager_ms": eager * 1e3, "fused_ms": fused * 1e3}
    try:
        with torch.no_grad():
            compiled = torch.compile(session.model.encode_query, dynamic=False)
            began = time.perf_counter()
            compiled(pixels)
            row["compile_seconds"] = time.perf_counter() - began
            taken = statistics.median(times(lambda: compiled(pixels), plan.seconds))
        row["compiled_ms"] = taken * 1e3
    except Exception as error:
        row["error"] = str(error).splitlines()[0]
    return row


# ------------------------------------------------------------------------------ all of it


def run(
    out: Path,
    *,
    plan: Plan = Plan(),
    parts: Sequence[str] = PARTS,
    precision: str = "auto",
    threads: int | None = None,
) -> dict[str, Any]:
    """Measure `parts`, write `speed.json`, `speed.md` and plots into `out`, return the figures.

    Raises:
        StremnError: an unknown part, model or precision; a folder that cannot be made.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise StremnError(f"Unknown parts {', '.join(unknown)}; known: {', '.join(PARTS)}.")
    if precision not in ("auto", "float32", "bfloat16"):
        raise StremnError(f"Unknown precision {precision!r}; use auto, float32 or bfloat16.")
    make_folder(out)
    if threads is not None:
        torch.set_num_threads(threads)
    if precision == "auto":
        precision = "bfloat16" if has_fast_bfloat16(torch.device("cpu")) else "float32"
    machine = measure_machine()
    results: dict[str, Any] = {"machine": asdict(machine), "precision": precision}
    for name, value in _measured(machine, plan, parts, precision):
        logger.info("%s measured", name)
        results[name] = value
        write_whole(out / "speed.json", json.dumps(results, indent=1).encode())
    from stremn.study.benchmark_report import draw, markdown

    write_whole(out / "speed.md", markdown(results).encode())
    draw(results, out)
    return results


def _measured(
    machine: Machine, plan: Plan, parts: Sequence[str], precision: str
) -> Iterator[tuple[str, Any]]:
    models = {name: ready_model(name) for name in plan.models}
    if "stages" in parts:
        yield (
            "stages",
            {
                f"{name} {size}": [
                    asdict(stage)
                    for stage in measure_stages(
                        model, machine, plan, precision=precision, frame_size=SIZES[size]
                    )
                ]
                for name, model in models.items()
                for size in (["480p"] if "480p" in plan.sizes else plan.sizes[:1])
            },
        )
    if "sweeps" in parts:
        yield "sweeps", {name: measure_sweeps(m, plan, precision) for name, m in models.items()}
    small = models[plan.models[0]]
    if "growth" in parts:
        yield "growth", measure_growth(small, plan, precision)
    if "pipeline" in parts:
        yield "pipeline", measure_pipeline(small, plan, precision)
    if "flat" in parts:
        yield "flat", asdict(measure_flatness(small, plan.flat_frames, plan.flat_side, precision))
    if "compile" in parts:
        yield "compile", measure_compiled(small, plan, precision)
