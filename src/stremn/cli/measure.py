"""`stremn bench` and `stremn export`: measure a step, and write it for other runtimes."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from stremn.cli.options import Model, Slots
from stremn.cli.panels import MEASURE, TRAIN
from stremn.cli.terminal import show
from stremn.networks.defaults import SHIPPED


def register(app: typer.Typer) -> None:
    """Add the commands of this file."""
    app.command(rich_help_panel=MEASURE)(bench)
    app.command(rich_help_panel=TRAIN)(export)


def bench(
    out: Annotated[Path, typer.Option("--out", "-o", help="Folder for JSON, tables and plots.")] = (
        Path("stremn-bench")
    ),
    parts: Annotated[
        str | None,
        typer.Option(
            help="Only these parts, separated by commas: stages, sweeps, growth, pipeline, flat, "
            "compile."
        ),
    ] = None,
    model: Annotated[
        list[str] | None,
        typer.Option(
            help="Preset (small, resnet50, stm, stcn; random weights where none are shipped), "
            "weights file, SAM model (folder or hub id), or a SAM configuration with random "
            "weights (sam2.1-hiera-tiny, -small, -base-plus, -large, edgetam, sam3-tracker, or "
            "sam2.1-toy). Repeatable. Default: small and resnet50."
        ),
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer sizes and shorter streams; takes minutes.")
    ] = False,
    frames: Annotated[
        int | None,
        typer.Option(min=2, help="Number of frames of `growth`. Default: 200, with --quick 100."),
    ] = None,
    precision: Annotated[
        str, typer.Option(help="Number format: auto, float32, bfloat16.")
    ] = "auto",
    threads: Annotated[
        int | None, typer.Option(min=1, help="Number of threads. Default: PyTorch's.")
    ] = None,
) -> None:
    """Measure the time of each stage of a step, and time and memory over long streams.

    Example: stremn bench --quick --out speed
    """
    from stremn.benchmarks import benchmark, workload
    from stremn.core.atomic_files import output_folder

    logging.getLogger("stremn").setLevel(logging.INFO)
    plan = workload.QUICK if quick else workload.FULL
    plan = replace(plan, growth_frames=frames or plan.growth_frames)
    with output_folder(out):
        benchmark.run(
            out,
            plan=replace(plan, models=tuple(model)) if model else plan,
            parts=parts.split(",") if parts else benchmark.PARTS,
            precision=precision,
            threads=threads,
        )
    show((out / "speed.md").read_text(encoding="utf-8"))


def export(
    path: Annotated[Path, typer.Argument(help="File to write, ending in .onnx or .pt2.")],
    model: Model = "small",
    height: Annotated[
        int, typer.Option(help="Height of the frames in pixels: a multiple of 16.")
    ] = 480,
    width: Annotated[
        int, typer.Option(help="Width of the frames in pixels: a multiple of 16.")
    ] = 864,
    objects: Annotated[int, typer.Option(help="Number of objects.")] = 1,
    slots: Slots = SHIPPED.memory_slots,
    policy: Annotated[str, typer.Option(help="Replacement rule.")] = SHIPPED.policy,
) -> None:
    """Write one step as an ONNX graph or torch.export program.

    The memory is an input and an output of fixed size. Prints the shapes of all inputs and outputs,
    and the code that runs the file.

    Example: stremn export step.onnx --height 480 --width 864
    """
    from stremn.networks.pretrained import load_model
    from stremn.segmentation.export import export_step, step_shapes

    network = load_model(model).model
    export_step(
        network,
        path,
        height=height,
        width=width,
        objects=objects,
        memory_slots=slots,
        policy=policy,
    )
    inputs, outputs = step_shapes(
        network, height=height, width=width, objects=objects, memory_slots=slots
    )
    show(str(path))
    for title, shapes in (("inputs", inputs), ("outputs", outputs)):
        show(f"{title}:")
        for name, shape in shapes.items():
            show(f"  {name:<16} {shape}")
    show("run it:")
    show(_RUN_ONNX.format(path) if path.suffix == ".onnx" else _RUN_PROGRAM.format(path))


_RUN_ONNX = """\
  from pathlib import Path; from stremn.segmentation.export import OnnxSession
  session = OnnxSession(Path("{}"))
  labels = session.step(frame, mask)  # uint8 RGB, ids; later frames: session.step(frame)"""
_RUN_PROGRAM = """\
  import torch
  step = torch.export.load("{}").module()
  probabilities, *memory = step(frame, given, is_given, time, *memory)"""
