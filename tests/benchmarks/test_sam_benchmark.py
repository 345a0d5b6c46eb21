"""What `bench` measures of SAM models."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from stremn.benchmarks import benchmark, sam
from stremn.benchmarks.sam import (
    is_measured_here,
    measure_sam_growth,
    measure_sam_steps,
    ready_sam,
)
from stremn.core.machine import Machine
from stremn.errors import StremnError
from stremn.sam.shapes import SHAPES, random_sam
from tiny_workload import TINY

MACHINE = Machine("a processor", 1, False, "2", "2026-01-01", {"float32": 1e9}, 1e8)
PLAN = replace(TINY, models=("sam2.1-toy",), growth_frames=24)


def test_ours_stays_and_theirs_grows() -> None:
    rows = measure_sam_growth(random_sam("sam2.1-toy"), 40, "float32")
    ours = [row["session_bytes"] for row in rows if row["session"] == "stremn"]
    theirs = [row["session_bytes"] for row in rows if row["session"] == "transformers"]
    assert len(ours) == len(theirs) == 20
    assert ours[10] == ours[-1]
    assert theirs[-1] > 1.8 * theirs[9]


def test_a_benchmark_of_a_toy_writes_its_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark, "measure_machine", lambda *_: MACHINE)
    found = benchmark.run(tmp_path, plan=PLAN, precision="float32")
    steps = {(row["objects"], row["memory_slots"]) for row in found["sam_steps"]["sam2.1-toy"]}
    assert steps == {(1, 7), (2, 7), (1, 1), (1, 2)}
    text = (tmp_path / "speed.md").read_text(encoding="utf-8")
    assert "Whole steps: sam2.1-toy" in text
    assert "| transformers | 24 |" in text
    assert (tmp_path / "speed.json").is_file()


def test_parts_that_are_not_measured_of_sam_models_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match="sweeps and growth are measured; got stages"):
        benchmark.run(tmp_path / "out", plan=PLAN, parts=["stages"])
    assert not (tmp_path / "out").exists()


def test_names_of_shapes_folders_and_presets(tmp_path: Path) -> None:
    assert all(map(is_measured_here, SHAPES))
    assert not any(map(is_measured_here, ("small", "stcn", "model.safetensors", str(tmp_path))))
    random_sam("edgetam-toy").network.save_pretrained(tmp_path / "model")
    assert is_measured_here(str(tmp_path / "model"))
    assert ready_sam(str(tmp_path / "model")).size == 64


def test_no_frame_is_drawn_while_a_step_is_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    def drawn(*_: int) -> None:
        raise AssertionError("drawn while a step is timed")

    def timed(step: Callable[[], object], *_: float) -> list[float]:
        with monkeypatch.context() as patch:
            patch.setattr(sam, "made_frame", drawn)
            step()
        return [1.0]

    monkeypatch.setattr(sam, "times", timed)
    rows = measure_sam_steps(random_sam("sam2.1-toy"), TINY, "float32")
    assert {row["ms"] for row in rows} == {1e3}
