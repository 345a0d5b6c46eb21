"""What the benchmark counts and compares; times themselves are not tested, growth is."""

import gc
import json
import logging
import sys
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from stremn.benchmarks import benchmark
from stremn.benchmarks.benchmark_report import markdown
from stremn.benchmarks.constancy import (
    Flatness,
    complexity,
    measure_flatness,
    measure_growth,
    resident_bytes,
)
from stremn.benchmarks.workload import Workload, full_session, made_frame, made_labels
from stremn.core import hardware
from stremn.core.machine import Cost, Machine, best_of, cost_of, measure_machine
from stremn.errors import MissingExtraError, StremnError
from stremn.segmentation.sessions import SegmentationSession
from tiny_model import tiny_model
from tiny_workload import TINY

MACHINE = Machine("a processor", 1, False, "2", "2026-01-01", {"float32": 1e9}, 1e8)


def test_arithmetic_and_bytes_of_a_convolution_and_a_product_are_cost_of() -> None:
    x, w = torch.rand(1, 3, 8, 8), torch.rand(5, 3, 3, 3)
    cost = cost_of(lambda: F.conv2d(x, w))
    assert cost == Cost(2 * 5 * 6 * 6 * 3 * 9, 4 * (3 * 64 + 5 * 27 + 5 * 36))
    a, b = torch.rand(4, 6), torch.rand(6, 7)
    assert cost_of(lambda: a @ b) == Cost(2 * 4 * 6 * 7, 4 * (24 + 42 + 28))


@torch.inference_mode()
def test_counting_works_inside_inference_mode() -> None:
    x, w = torch.rand(1, 3, 8, 8), torch.rand(5, 3, 3, 3)
    assert cost_of(lambda: F.conv2d(x, w)).flops > 0


def test_the_floor_is_the_larger_of_arithmetic_and_traffic() -> None:
    assert MACHINE.floor(Cost(2e9, 1e7), "float32") == 2.0
    assert MACHINE.floor(Cost(1e9, 5e8), "float32") == 5.0


def test_appendix_a_is_constant_for_a_full_memory_and_linear_for_a_growing_one() -> None:
    full = [complexity(t, 6, 100, 8, 16) for t in (50, 500, 5000)]
    assert full[0]["learned"] == full[2]["learned"]
    assert full[2]["growing"] == pytest.approx(100 * full[0]["growing"])
    assert full[0]["growing"] == 50 / 5 * 100**2 * 24
    assert full[0]["learned"] == 6 * 100**2 * 24 + 7 * 100 * 64 + 6 * 100**2 * 8


def test_made_frames_show_made_labels() -> None:
    labels = made_labels(60, 90, 3)
    assert set(labels.flat) == {0, 1, 2, 3}
    assert made_frame(60, 90).shape == (60, 90, 3)
    assert (made_frame(60, 90) != made_frame(60, 90, 50)).any()
    picture = made_frame(120, 180, 7).astype(int)
    for i in (1, 2, 3):  # each of one color, whatever the number of objects asked for
        inside = made_labels(120, 180, i, 7) == i
        assert np.array_equal(inside & (made_labels(120, 180, 10, 7) == i), inside)
        assert picture[inside].std(0).max() < 12


@pytest.mark.parametrize("objects", [1, 2])
def test_a_full_session_steps_with_all_slots_taken(objects: int) -> None:
    session = full_session(tiny_model(), made_frame(64, 64), objects, 4, "float32", 64)
    assert session.track is not None
    assert not bool(session.track.state.vacant.any())
    report = session.step(made_frame(64, 64)).memory
    assert all(None not in held.frames for held in report.objects)


def test_a_stream_does_not_grow() -> None:
    flat = measure_flatness(tiny_model(), 300, 128, "float32")
    assert len(flat.memory_bytes) == 1
    if flat.first_resident:  # small maps would not show among 800 MB; the next test sees them
        assert flat.growth < 0.02


def test_a_step_leaves_no_tensor_behind() -> None:
    options = {"precision": "float32", "size": 64, "policy": "learned", "reach": None}
    session = SegmentationSession(tiny_model(), device="cpu", **options)
    session.step(made_frame(64, 64), made_labels(64, 64, 2))
    alive = []
    for t in range(1, 40):
        session.step(made_frame(64, 64, t))
        if t in (15, 39):
            gc.collect()
            alive.append(sum(issubclass(type(o), torch.Tensor) for o in gc.get_objects()))
    assert alive[0] == alive[1]


def test_flatness_sees_growth() -> None:
    flat = Flatness(10, 64, 2.0, 3.0, 100, 150, (1, 2))
    assert flat.slowdown == pytest.approx(0.5)
    assert flat.growth == pytest.approx(0.5)


def test_resident_memory_that_nobody_knows_is_not_a_fall_to_nothing() -> None:
    flat = Flatness(1000, 64, 2.0, 3.0, 0, 0, (1,))
    assert flat.growth == 0.0
    results = {"machine": asdict(MACHINE), "precision": "float32", "flat": asdict(flat)}
    assert "resident memory not known on this system" in markdown(results)


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="needs /proc")
def test_resident_memory_counts_pages_of_the_systems_size(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 1}[name])
    pages = resident_bytes()
    assert 0 < pages < 10**6


def test_a_growing_memory_grows_and_the_learned_one_does_not() -> None:
    rows = measure_growth(tiny_model(), TINY, "float32")
    assert len({row["memory_bytes"] for row in rows["learned"]}) == 1
    assert rows["growing"][-1]["frame"] == TINY.growth_frames - 1


def test_the_report_of_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmark, "ready_model", lambda name: tiny_model())
    monkeypatch.setattr(
        benchmark, "measure_machine", partial(measure_machine, size=64, megabytes=1)
    )
    parts = ("stages", "sweeps", "growth", "pipeline", "flat")
    results = benchmark.run(tmp_path, plan=TINY, parts=parts, precision="float32")
    assert json.loads((tmp_path / "speed.json").read_text())["precision"] == "float32"
    text = (tmp_path / "speed.md").read_text()
    for word in ("read (Eq 5)", "write (Eq 1-4)", "whole step", "frames/s", "App. A", "pipeline"):
        assert word in text
    assert "within reach 0.5" in text
    reaches = [row["reach"] for row in results["sweeps"]["small"]]
    assert {None, 0.5} == set(reaches)
    for stage in ("query encoder", "decoder", "memory encoder", "read (Eq 5)"):
        row = next(s for s in results["stages"]["small 240p"] if s["name"] == stage)
        assert row["cost"]["flops"] > 0
        assert row["floor"] > 0
    stages = results["stages"]["small 240p"]
    whole = [stage["name"] for stage in stages].index("whole step")
    parts_of_it = [stage["median"] for stage in stages[:whole]]
    if parts_of_it[-1] > 0:  # what is left of the step
        assert sum(parts_of_it) == pytest.approx(stages[whole]["median"])
    for name in ("growth", "flat"):
        assert (tmp_path / f"{name}.png").stat().st_size > 0


@pytest.mark.parametrize("fast", [True, False])
def test_arithmetic_that_the_machine_is_slow_at_is_not_measured(
    fast: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def machine(precisions: list[str]) -> Machine:
        return replace(MACHINE, flops=dict.fromkeys(precisions, 1e9))

    def step(model: nn.Module, plan: Workload, *, precision: str, **_: object) -> dict[str, object]:
        steps.append(precision)
        row = {
            "size": "240p",
            "objects": 1,
            "memory_slots": 6,
            "precision": precision,
            "reach": None,
        }
        return row | {"ms": 1.0, "best_ms": 1.0, "memory_bytes": 1}

    steps: list[str] = []
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: fast)
    monkeypatch.setattr(benchmark, "ready_model", lambda name: tiny_model())
    monkeypatch.setattr(benchmark, "measure_machine", machine)
    monkeypatch.setattr(benchmark, "measure_step", step)
    results = benchmark.run(tmp_path, plan=TINY, parts=["sweeps"])
    precisions = {"float32", "bfloat16"} if fast else {"float32"}
    assert set(results["machine"]["flops"]) == set(steps) == precisions
    assert results["precision"] == steps[0] == ("bfloat16" if fast else "float32")


def test_the_shortest_of_few_tries_where_a_try_takes_long() -> None:
    runs = []
    assert best_of(lambda: runs.append(1), tries=5) >= 0
    assert len(runs) == 1 + 5
    assert best_of(lambda: runs.append(1), tries=5, enough=0) >= 0
    assert len(runs) == 1 + 5 + 1 + 1


def test_unknown_parts_and_precisions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match="Unknown parts speed; known: stages"):
        benchmark.run(tmp_path / "out", parts=["speed"])
    with pytest.raises(StremnError, match="Unknown precision 'half'; use auto"):
        benchmark.run(tmp_path / "out", precision="half")
    assert not (tmp_path / "out").exists()


def test_fewer_threads_than_one_are_refused(tmp_path: Path) -> None:
    for threads in (0, -1):
        with pytest.raises(StremnError, match=f"one thread or more, got threads={threads}"):
            benchmark.run(tmp_path / "out", threads=threads)
    assert not (tmp_path / "out").exists()


class BegunError(Exception):
    """Measuring has begun."""


def begin(*_: object) -> Machine:
    raise BegunError


def test_missing_matplotlib_is_told_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "measure_machine", begin)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    for part in ("growth", "flat"):
        with pytest.raises(MissingExtraError, match="matplotlib"):
            benchmark.run(tmp_path / "out", plan=TINY, parts=["sweeps", part])
    assert not (tmp_path / "out").exists()
    with pytest.raises(BegunError):  # nothing is drawn of these
        benchmark.run(tmp_path / "out", plan=TINY, parts=["sweeps", "pipeline"])


def test_an_interrupted_run_says_which_figures_are_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(benchmark, "ready_model", lambda name: tiny_model())
    monkeypatch.setattr(benchmark, "measure_machine", lambda *_: MACHINE)
    monkeypatch.setattr(benchmark, "measure_growth", interrupted)
    monkeypatch.setattr(benchmark, "measure_sweeps", lambda *_: [{"ms": 1.0}])
    with caplog.at_level(logging.WARNING):
        with pytest.raises(KeyboardInterrupt):
            benchmark.run(tmp_path, plan=TINY, parts=["growth"], precision="float32")
        assert not caplog.text
        with pytest.raises(KeyboardInterrupt):
            benchmark.run(tmp_path, plan=TINY, parts=["sweeps", "growth"], precision="float32")
    assert f"The figures of sweeps are in {tmp_path / 'speed.json'}." in caplog.text
    assert json.loads((tmp_path / "speed.json").read_text())["sweeps"]["small"] == [{"ms": 1.0}]
