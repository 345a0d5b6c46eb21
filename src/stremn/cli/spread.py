"""Spread the sequences of an evaluation over workers: processes here, or a Ray cluster."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from stremn.cli.terminal import say

if TYPE_CHECKING:
    from stremn.batch.attempts import Task
    from stremn.batch.runs import Workers
    from stremn.evaluation.segmentation.evaluation import Elsewhere

WorkerCount = Annotated[
    int,
    typer.Option(
        "--workers",
        min=1,
        help="Number of sequences at a time on this machine, each in its own process.",
    ),
]
RayAddress = Annotated[
    str | None,
    typer.Option(
        "--ray",
        help="Run the sequences on a Ray cluster, one core each: `auto` (this machine's), "
        "HOST:PORT or ray://HOST:PORT. Needs the extra `cluster`.",
    ),
]

Job = Callable[[str, Path], None]
"""Runs the sequence of that name and keeps its record in a folder; it is sent to a process."""


def spread(job: Job, workers: int, ray: str | None) -> Elsewhere | None:
    """Return a function that runs sequences in workers; None for one worker, this process.

    Raises:
        MissingExtraError: Ray is asked for and not installed.
    """
    from stremn.batch.cluster import Cluster
    from stremn.batch.processes import Processes

    if ray is not None:
        return partial(_run, Cluster(ray, retries=0), job)
    return partial(_run, Processes(workers, retries=0), job) if workers > 1 else None


def _run(who: Workers, job: Job, names: Sequence[str], out: Path) -> None:
    """Run sequences, each as a task with its report and log in `out/.scores/jobs`."""
    from stremn.batch.attempts import Task
    from stremn.batch.runs import run_tasks

    out = out.resolve()
    jobs = out / ".scores" / "jobs"
    shutil.rmtree(jobs, ignore_errors=True)  # the records say what is done, not these reports
    tasks = [Task(name, (name,), jobs / name, partial(_do, job, name, out)) for name in names]
    run_tasks(tasks, who, _tell)


def _do(job: Job, name: str, out: Path, arguments: list[str]) -> None:
    job(name, out)


def _tell(ended: Sequence[Task]) -> None:
    from stremn.batch.reports import read_report

    for task in ended:
        report = read_report(task.folder)
        done = report is not None and report.status == "done"
        say(f"{task.name}: {'done' if done else 'not done by its worker'}")
