"""Measure the cost of a step by stage and by length of the video (Appendix A).

Every figure stands beside what the machine allows: its matrix product rate and its memory
bandwidth are measured in the same run, and the floor of a stage is the larger of its arithmetic
by the one and its bytes by the other.
"""

from __future__ import annotations

import logging
import statistics
import tempfile
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

import torch

from stremn.benchmarks.benchmark_report import PLOTTED, draw, markdown
from stremn.benchmarks.constancy import measure_flatness, measure_growth
from stremn.benchmarks.sam import is_measured_here, measure_sam_growth, measure_sam_steps, ready_sam
from stremn.benchmarks.stages import measure_stages
from stremn.benchmarks.workload import (
    FULL,
    SIZES,
    Workload,
    full_session,
    made_frame,
    made_labels,
    new_session,
    ready_model,
)
from stremn.core.hardware import precision_name
from stremn.core.machine import Machine, measure_machine, times
from stremn.errors import StremnError
from stremn.evaluation.plotting import require_matplotlib
from stremn.evaluation.segmentation.records import save_json
from stremn.evaluation.unfinished import telling_what_is_kept
from stremn.media.encoding import write_video
from stremn.media.files import make_folder, write_whole
from stremn.media.given import MaskOf
from stremn.media.masks import Labels, label_map
from stremn.media.results import ResultWriter
from stremn.media.video import open_frames
from stremn.networks.defaults import PAPER, SHIPPED
from stremn.networks.inference import for_inference
from stremn.networks.model import STReMN
from stremn.networks.working_size import WorkingSize
from stremn.segmentation.pipeline import segment_video

logger = logging.getLogger(__name__)

PARTS = ("stages", "sweeps", "growth", "flat", "pipeline", "compile")
SAM_PARTS = ("sweeps", "growth")
"""What is measured of SAM models."""


# ------------------------------------------------------------------------------ sweeps


def measure_step(
    model: STReMN,
    plan: Workload,
    *,
    precision: str,
    objects: int = 1,
    memory_slots: int = PAPER.memory_slots,
    size: str = "480p",
    reach: float | None = None,
) -> dict[str, Any]:
    """Measure a whole step with a full memory, reading the whole frame or within `reach`."""
    height, width = SIZES[size]
    frame = made_frame(height, width)
    session = full_session(model, frame, objects, memory_slots, precision, height, reach)
    taken = times(lambda: session.step(frame), plan.seconds, 3)
    return {
        "size": size,
        "objects": objects,
        "memory_slots": memory_slots,
        "precision": precision,
        "reach": reach,
        "ms": statistics.median(taken) * 1e3,
        "best_ms": min(taken) * 1e3,
        "memory_bytes": session.memory_bytes,
    }


def measure_sweeps(
    model: STReMN, plan: Workload, precision: str, others: Collection[str]
) -> list[dict[str, Any]]:
    """Measure steps against objects, slots, frame size and precision, one at a time."""
    step = partial(measure_step, model, plan)
    looks = (None, SHIPPED.reach)
    rows = [step(objects=n, precision=precision, reach=r) for r in looks for n in plan.objects]
    rows += [step(memory_slots=k, precision=precision) for k in plan.memory_slots]
    rows += [step(size=size, precision=precision, reach=r) for r in looks for size in plan.sizes]
    return rows + [step(precision=other) for other in others]


# ------------------------------------------------------------------------------ whole pipeline


def measure_pipeline(
    model: STReMN, plan: Workload, precision: str, reach: float | None, size: str = "480p"
) -> dict[str, Any]:
    """Measure frames per second from a video file to masks and overlay, and of the model alone."""
    height, width = SIZES[size]
    frames = [made_frame(height, width, i) for i in range(plan.pipeline_frames)]
    labels = made_labels(height, width, 1)

    alone, followed = (new_session(model, precision, height, reach=reach) for _ in range(2))
    alone.step(frames[0], labels)
    began = time.perf_counter()
    for frame in frames[1:]:
        alone.step(frame)
    own = (len(frames) - 1) / (time.perf_counter() - began)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        write_video(path, frames, 25)
        with open_frames(path) as source, ResultWriter(Path(folder) / "out", fps=25) as writer:
            summary = segment_video(source, followed, _first(labels), writer)
    rate = summary.frames_per_second
    return {"reach": reach, "model_fps": own, "pipeline_fps": rate, "share": rate / own}


def _first(labels: Labels) -> MaskOf:
    given = label_map(labels)
    return lambda frame: given if frame.index == 0 else None


def measure_compiled(model: STReMN, plan: Workload, precision: str) -> dict[str, Any]:
    """Time the query encoder with and without `torch.compile`, and the compiling.

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
        row["error"] = (str(error) or type(error).__name__).splitlines()[0]
    return row


# ------------------------------------------------------------------------------ all of it


def run(
    out: Path,
    *,
    plan: Workload = FULL,
    parts: Sequence[str] = PARTS,
    precision: str = "auto",
    threads: int | None = None,
) -> dict[str, Any]:
    """Measure `parts`, write `speed.json`, `speed.md` and plots into `out`, return the figures.

    Raises:
        StremnError: an unknown part, model or precision; fewer threads than one; a folder that
            cannot be made.
        MissingExtraError: a part is drawn, and matplotlib is not installed.
    """
    unknown = sorted(set(parts) - set(PARTS))
    if unknown:
        raise StremnError(f"Unknown parts {', '.join(unknown)}; known: {', '.join(PARTS)}.")
    if precision not in ("auto", "float32", "bfloat16"):
        raise StremnError(f"Unknown precision {precision!r}; use auto, float32 or bfloat16.")
    sam = [name for name in plan.models if is_measured_here(name)]
    if sam and not set(parts) & set(SAM_PARTS):
        raise StremnError(
            f"Of SAM models such as {sam[0]}, {' and '.join(SAM_PARTS)} are measured; got "
            f"{', '.join(parts)}."
        )
    if threads is not None and threads < 1:
        raise StremnError(
            f"A step runs on one thread or more, got threads={threads}. Leave it out to use "
            "PyTorch's default."
        )
    own = replace(plan, models=tuple(name for name in plan.models if name not in sam))
    if own.models and set(parts) & set(PLOTTED):
        require_matplotlib()
    make_folder(out)
    if threads is not None:
        torch.set_num_threads(threads)
    cpu = torch.device("cpu")
    precision = precision_name(precision, cpu)
    # Arithmetic that this machine is slow at is left out unless asked for: it would take hours.
    worth_it = dict.fromkeys([precision, "float32", precision_name("auto", cpu)])
    machine = measure_machine(list(worth_it))
    results: dict[str, Any] = {"machine": asdict(machine), "precision": precision}
    measured: list[str] = []
    with telling_what_is_kept(lambda: _kept(measured, out)):
        for name, value in chain(
            _measured(machine, own, parts, precision), _measured_sam(sam, plan, parts, precision)
        ):
            results[name] = value
            save_json(out / "speed.json", results)
            logger.info("%s measured", name)
            measured.append(name)
    write_whole(out / "speed.md", markdown(results).encode())
    draw(results, out)
    return results


def _kept(measured: Sequence[str], out: Path) -> str:
    names = ", ".join(dict.fromkeys(measured))
    return f"The figures of {names} are in {out / 'speed.json'}." if names else ""


def _measured(
    machine: Machine, plan: Workload, parts: Sequence[str], precision: str
) -> Iterator[tuple[str, Any]]:
    if not plan.models:
        return
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
        others = [name for name in machine.flops if name != precision]
        yield (
            "sweeps",
            {name: measure_sweeps(m, plan, precision, others) for name, m in models.items()},
        )
    small = models[plan.models[0]]
    if "growth" in parts:
        yield "growth", measure_growth(small, plan, precision)
    if "pipeline" in parts:
        looks = (None, SHIPPED.reach)
        yield "pipeline", [measure_pipeline(small, plan, precision, reach) for reach in looks]
    if "flat" in parts:
        yield "flat", asdict(measure_flatness(small, plan.flat_frames, plan.flat_side, precision))
    if "compile" in parts:
        yield "compile", measure_compiled(small, plan, precision)


def _measured_sam(
    names: Sequence[str], plan: Workload, parts: Sequence[str], precision: str
) -> Iterator[tuple[str, Any]]:
    steps: dict[str, Any] = {}
    growth: dict[str, Any] = {}
    for name in names:
        model = ready_sam(name)
        if "sweeps" in parts:
            steps[name] = measure_sam_steps(model, plan, precision)
            yield "sam_steps", steps
        if "growth" in parts:
            growth[name] = measure_sam_growth(model, plan.growth_frames, precision)
            yield "sam_growth", growth
