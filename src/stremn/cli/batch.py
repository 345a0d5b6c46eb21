"""`stremn batch`: follow objects through many videos, on one machine or a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from typer.core import TyperCommand

from stremn.cli import segment
from stremn.cli.options import Out
from stremn.cli.panels import FOLLOW
from stremn.cli.terminal import console, log_lines, say
from stremn.errors import StremnError

if TYPE_CHECKING:
    from stremn.batch.attempts import Task
    from stremn.batch.jobs import Flags, Job
    from stremn.batch.runs import Outcome, Workers

_STOPPED = 130  # exit code after Ctrl-C
_SHOWN = 3  # running jobs that the progress names


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=FOLLOW)(batch)


def batch(
    jobs: Annotated[
        Path,
        typer.Argument(
            help="CSV file with a header: `video`, one of `mask`, `box`, `click`, `object`, and "
            "any option of `segment`; `name` is the name of the job. Or a folder of videos, with "
            "--masks."
        ),
    ],
    out: Out = Path("out"),
    masks: Annotated[
        Path | None, typer.Option(help="Folder of masks, named like the videos.")
    ] = None,
    option: Annotated[
        list[str] | None,
        typer.Option(
            help='`"size=240"`: an option of `segment` for all jobs; repeatable. A value in the '
            "CSV file takes precedence."
        ),
    ] = None,
    workers: Annotated[
        int,
        typer.Option(
            min=1, help="Number of jobs at a time on this machine, each in its own process."
        ),
    ] = 1,
    ray: Annotated[
        str | None,
        typer.Option(
            help="Run the jobs on a Ray cluster: `auto` (this machine's), HOST:PORT or "
            "ray://HOST:PORT. Needs the extra `cluster`."
        ),
    ] = None,
    cpus: Annotated[float, typer.Option(min=0, help="With --ray: number of cores per job.")] = 1,
    gpus: Annotated[
        float, typer.Option(min=0, help="With --ray: number of GPUs per job, such as 0.5.")
    ] = 0,
    retries: Annotated[
        int, typer.Option(min=0, help="How many times to try a failed job again.")
    ] = 1,
) -> None:
    """Segment many videos; one job is one video.

    Writes OUT/NAME/ for each job: the results of `segment`, job.json (its status) and log.txt. Run
    the same command again to continue: finished jobs are skipped, interrupted ones are resumed,
    failed ones are tried again.

    Example: stremn batch jobs.csv -o out --workers 2
    """
    from stremn.batch.cluster import Cluster
    from stremn.batch.processes import Processes
    from stremn.batch.runs import left, run_tasks, tasks_of
    from stremn.core.atomic_files import output_folder

    chosen = _jobs(jobs, masks, option or [])
    command = _segment()
    tasks = tasks_of(chosen, out.resolve(), segment_job, _flags(command))
    for task in tasks:
        _check_arguments(command, task)
    who: Workers = Processes(workers, retries) if ray is None else Cluster(ray, retries, cpus, gpus)
    with output_folder(out):
        waiting = left(tasks)
        say(f"{len(tasks)} jobs, {len(tasks) - len(waiting)} of them done before.")
        with _progress(tasks, waiting) as watch:
            outcome = run_tasks(tasks, who, watch)
    _tell(outcome, out)


def segment_job(arguments: list[str]) -> None:
    """Run `stremn segment` with these arguments in this process.

    Raises:
        KeyboardInterrupt: it was stopped; typer turns that into an exit code or into its `Abort`.
        StremnError: it ended with another exit code than 0.
    """
    try:
        code = _segment()(arguments, standalone_mode=False)
    except typer.Abort as error:
        raise KeyboardInterrupt from error
    if code == _STOPPED:
        raise KeyboardInterrupt
    if code:
        raise StremnError(f"stremn segment ended with exit code {code}; expected 0.")


def _jobs(source: Path, masks: Path | None, options: Sequence[str]) -> list[Job]:
    from stremn.batch.jobs import jobs_of_folder, read_jobs, with_options

    if source.is_dir():
        if masks is None:
            raise StremnError(f"{source} is a folder of videos: add --masks, the folder of masks.")
        found = jobs_of_folder(source, masks)
    elif masks is not None:
        raise StremnError("--masks goes with a folder of videos; a CSV file has a column mask.")
    else:
        found = read_jobs(source)
    given = {}
    for text in options:
        name, equals, value = text.partition("=")
        if not equals:
            raise StremnError(f'--option is written "size=240", got {text!r}.')
        given[name] = value.strip()
    return with_options(found, given)


def _segment() -> TyperCommand:
    """Return the command `segment`."""
    alone = typer.Typer(add_completion=False)
    segment.register(alone)
    command = typer.main.get_command(alone)
    assert isinstance(command, TyperCommand)  # a single command is no group
    return command


def _flags(command: TyperCommand) -> Flags:
    """Return the options of a command that have no value."""
    found = [item for item in command.params if getattr(item, "is_flag", False)]
    return {
        item.opts[0].lstrip("-"): (item.opts[0], next(iter(item.secondary_opts), None))
        for item in found
    }


def _check_arguments(command: TyperCommand, task: Task) -> None:
    """Refuse options that `segment` does not have or values that it does not take."""
    usage_error: type[Exception] = typer.BadParameter.__bases__[0]  # as this typer has it
    try:
        command.make_context("segment", list(task.arguments))
    except usage_error as error:
        reason = getattr(error, "format_message", lambda: str(error))()
        raise StremnError(f"Job {task.name}: {reason}") from error


@contextmanager
def _progress(
    tasks: Sequence[Task], waiting: Sequence[Task]
) -> Iterator[Callable[[Sequence[Task]], None]]:
    """Show how many jobs are done, and the progress of those that run."""
    from stremn.batch.reports import frames_done, read_report

    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[running]}", markup=False),
        TimeElapsedColumn(),
    )
    unfinished = {task.name: task for task in waiting}
    done = len(tasks) - len(waiting)
    log = log_lines()
    with Progress(*columns, console=console) as progress:
        bar = progress.add_task("jobs", total=len(tasks), completed=done, running="")

        def watch(ended: Sequence[Task]) -> None:
            for task in ended:
                del unfinished[task.name]
                report = read_report(task.folder)
                if report is not None:
                    why = f": {report.error}" if report.error else ""
                    say(f"{task.name}: {report.status}, {report.frames} frames{why}")
            running = [
                f"{name} {frames_done(task.folder)}"
                for name, task in unfinished.items()
                if (report := read_report(task.folder)) is not None and report.status == "running"
            ]
            ready = len(tasks) - len(unfinished)
            shown = ", ".join(running[:_SHOWN]) + (" ..." if len(running) > _SHOWN else "")
            progress.update(bar, completed=ready, running=shown)
            if log.due():
                say(f"{ready} of {len(tasks)} jobs; frames of those that run: {shown or 'none'}")

        yield watch


def _tell(outcome: Outcome, out: Path) -> None:
    """Report the result; exit with code 1 if a job failed."""
    failed = outcome.failed
    done = len(outcome.reports) - len(failed)
    say(f"{done} of {len(outcome.reports)} jobs are done, in {out}.")
    for report in failed:
        say(f"  {report.name} {report.status} after {report.attempts} attempts: {report.error}")
    if failed:
        say("The same command tries them again.")
        raise typer.Exit(1)
