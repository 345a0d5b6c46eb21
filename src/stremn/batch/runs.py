"""Run a batch: find the jobs that are left, give them to workers, and follow their progress."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from stremn.batch.attempts import Segment, Task
from stremn.batch.jobs import Flags, Job
from stremn.batch.reports import Report, read_report
from stremn.errors import StremnError


class Workers(Protocol):
    """Runs tasks, several at a time."""

    def run(self, tasks: Sequence[Task]) -> Generator[list[Task]]:
        """Run the tasks; yield from time to time those that have ended since the last time."""


@dataclass(frozen=True)
class Outcome:
    """Result of a batch: the reports of all jobs, and which of them were done before."""

    reports: tuple[Report, ...]
    before: tuple[str, ...]

    @property
    def failed(self) -> tuple[Report, ...]:
        """The jobs that failed."""
        return tuple(report for report in self.reports if report.status != "done")


def tasks_of(jobs: Iterable[Job], out: Path, segment: Segment, flags: Flags) -> list[Task]:
    """Return a task for each job, with its results below `out`."""
    return [Task(job.name, tuple(job.arguments(flags)), out / job.name, segment) for job in jobs]


def left(tasks: Iterable[Task]) -> list[Task]:
    """Return the tasks that are not done yet.

    Raises:
        StremnError: a job's folder holds the results of other arguments.
    """
    remaining = []
    for task in tasks:
        report = read_report(task.folder)
        if report is not None and report.arguments != list(task.arguments):
            raise StremnError(
                f"{task.folder} holds the job {task.name} with other options: "
                f"{' '.join(report.arguments)}. Choose another output folder, or remove that one."
            )
        if report is None or report.status != "done":
            remaining.append(task)
    return remaining


def run_tasks(
    tasks: Sequence[Task], workers: Workers, watch: Callable[[Sequence[Task]], None]
) -> Outcome:
    """Run the tasks that are not done yet.

    Args:
        tasks: all of the run.
        workers: who does them.
        watch: called from time to time with the tasks that have ended since the last time.

    Raises:
        StremnError: a job has other arguments than before; no worker can be reached.
    """
    remaining = left(tasks)
    if remaining:
        with closing(workers.run(remaining)) as rounds:
            for ended in rounds:
                watch(ended)
    names = {task.name for task in remaining}
    return Outcome(
        tuple(_report_of(task) for task in tasks),
        tuple(task.name for task in tasks if task.name not in names),
    )


def _report_of(task: Task) -> Report:
    """Return a task's report; where none could be written, one that says so."""
    return read_report(task.folder) or Report(
        name=task.name,
        arguments=list(task.arguments),
        status="failed",
        attempts=0,
        error=f"Nothing could be written into {task.folder}.",
    )
