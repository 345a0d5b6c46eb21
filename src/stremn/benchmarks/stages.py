"""Measure the cost of each stage of a step, and the floor that the machine allows."""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stremn.benchmarks.workload import Workload, full_session, made_frame
from stremn.core.machine import Cost, Machine, cost_of, times
from stremn.media.encoding import write_video
from stremn.media.frame_results import FrameResult
from stremn.media.frames import Frame, Picture, frame_name
from stremn.media.results import ResultWriter
from stremn.media.video import open_frames
from stremn.memory.reading import read
from stremn.memory.writing import write
from stremn.networks.inference import for_inference
from stremn.networks.model import STReMN
from stremn.networks.working_size import WorkingSize
from stremn.segmentation.aggregation import aggregate_fast, object_masks, upsampled
from stremn.segmentation.postprocess import remove_distant_regions
from stremn.segmentation.sessions import SegmentationSession


@dataclass(frozen=True)
class StepStage:
    """One stage of a step: median and best time in ms, cost, floor in ms, and median by floor.

    Where there is no floor to compare with, `floor` is 0 and `ratio` None.
    """

    name: str
    median: float
    best: float
    cost: Cost
    floor: float
    ratio: float | None
    note: str = ""


@torch.inference_mode()
def measure_stages(
    model: STReMN, machine: Machine, plan: Workload, *, precision: str, frame_size: tuple[int, int]
) -> list[StepStage]:
    """Measure each stage of a step of one object with a full memory of six slots."""
    height, width = frame_size
    frame = made_frame(height, width)
    session = full_session(model, frame, 1, 6, precision, min(frame_size))
    found = _Measured(machine, plan, precision)
    _measure_model(found, session, frame)
    whole = _whole_step(found.stages, session, frame, plan)
    rest = max(0.0, whole.median - sum(stage.median for stage in found.stages))
    found.stages.append(StepStage("labels, report, checks", rest, 0.0, Cost(), 0.0, None))
    found.stages.append(whole)
    _measure_files(found, frame, session)
    return found.stages


class _Measured:
    """Collects stages."""

    def __init__(self, machine: Machine, plan: Workload, precision: str) -> None:
        self.machine, self.plan, self.precision = machine, plan, precision
        self.stages: list[StepStage] = []

    def add(self, name: str, run: Callable[[], Any], cost: Cost, note: str = "") -> None:
        taken = [seconds * 1e3 for seconds in times(run, self.plan.seconds / 2)]
        floor = self.machine.floor(cost, self.precision) * 1e3
        middle = statistics.median(taken)
        ratio = middle / floor if floor else None
        self.stages.append(StepStage(name, middle, min(taken), cost, floor, ratio, note))


def _measure_model(found: _Measured, session: SegmentationSession, frame: Picture) -> None:
    assert session.track is not None  # full
    plain, fast, track = session.model, for_inference(session.model), session.track
    size = WorkingSize.of(frame.shape[0], frame.shape[1], session.size)
    inner = size.inward_image(frame)
    pixels = session.as_tensor(inner)
    query = fast.encode_query(pixels)
    each = query.take(track.video)
    state, area = track.state, pixels.shape[-2] * pixels.shape[-1]
    found_values = read(state, each.key, matching=fast.matching)
    y = torch.cat([found_values, each.value.to(found_values.dtype)], -1).permute(0, 3, 1, 2)
    coarse = fast.decoder(y, each.skips)
    shares = aggregate_fast(upsampled(coarse, pixels)[None])
    masks = object_masks(shares, track.video, track.label).to(query.stem.dtype)
    template = fast.encode_memory(each, masks, session.frame)

    def to_tensor() -> Tensor:
        return session.as_tensor(size.inward_image(frame))

    found.add("resize and convert", to_tensor, Cost(0, 2 * frame.nbytes + 2 * pixels.nbytes))
    run = partial(fast.encode_query, pixels)
    found.add("query encoder", run, cost_of(partial(plain.encode_query, pixels)))
    read_cost = Cost(
        2 * state.batch * each.key[0, ..., 0].numel() * state.keys[0, ..., 0].numel()
        * (state.keys.shape[-1] + state.values.shape[-1]),
        state.keys.nbytes + state.values.nbytes + found_values.nbytes,
    )  # fmt: skip
    found.add("read (Eq 5)", lambda: read(state, each.key, matching=fast.matching), read_cost)
    if state.summary is not None:
        features = state.summary.shape[2]
        solved = Cost(state.batch * features**3 // 3, state.summary.nbytes)
        found.add("object summaries", lambda: fast.hints(state, query, track.video), solved)
    decode = partial(fast.decoder, y, each.skips)
    found.add("decoder", decode, cost_of(partial(plain.decoder, y, each.skips)))
    found.add(
        "aggregate",
        lambda: object_masks(
            aggregate_fast(upsampled(coarse, pixels)[None]), track.video, track.label
        ),
        Cost(0, coarse.nbytes + (1 + 2 + 2) * 4 * area),
    )
    encode = partial(fast.encode_memory, each, masks, 0)
    found.add("memory encoder", encode, cost_of(partial(plain.encode_memory, each, masks, 0)))
    similarity = Cost(
        2 * template.compared[..., 0].numel() * state.compared.numel() / state.batch,
        state.compared.nbytes + 2 * (template.key.nbytes + template.value.nbytes),
    )
    found.add(
        "write (Eq 1-4)",
        lambda: write(state, template, session.policy, reuse=True),
        similarity,
    )


def _whole_step(
    stages: Sequence[StepStage], session: SegmentationSession, frame: Picture, plan: Workload
) -> StepStage:
    taken = [seconds * 1e3 for seconds in times(lambda: session.step(frame), plan.seconds)]
    cost = Cost(sum(s.cost.flops for s in stages), sum(s.cost.bytes for s in stages))
    floor = sum(stage.floor for stage in stages)
    middle = statistics.median(taken)
    return StepStage("whole step", middle, min(taken), cost, floor, middle / floor)


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
        found.stages.append(StepStage("decode H.264", decode, decode, Cost(), 0.0, None))
        with ResultWriter(Path(folder) / "out", fps=25) as writer:
            numbers = iter(range(10**6))

            def write() -> None:
                i = next(numbers)
                writer.write(FrameResult(Frame(i, frame_name(i), frame), result.labels, {}))

            found.add("encode PNG and overlay", write, Cost(), "libx264 and zlib set the pace")
        png = next((Path(folder) / "out" / "masks").glob("*.png")).read_bytes()
        target = Path(folder) / "copy.png"
        found.add("disk", lambda: target.write_bytes(png), Cost(0, len(png)), "one small file")
