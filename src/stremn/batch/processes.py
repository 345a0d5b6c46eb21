"""Run jobs on one machine, a given number at a time, each in its own process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from multiprocessing.connection import Connection

from stremn.batch.attempts import Task
from stremn.errors import StremnError

_OK, _FAILED, _STOPPED = 0, 2, 130
_KILLED_AT_START = -signal.SIGINT  # by Ctrl-C, before it had a process group of its own
_TICK = 0.5  # seconds between two looks at how it goes


@dataclass(frozen=True)
class Processes:
    """Run a given number of processes at a time; a process that dies ends only its own job.

    retries: how often a failed job is tried again.
    threads: that a process computes with; None shares the machine's out.
    """

    workers: int = 1
    retries: int = 1
    threads: int | None = None

    def run(self, tasks: Sequence[Task]) -> Generator[list[Task]]:
        """Run the tasks; yield from time to time those that have ended since the last time.

        Raises:
            KeyboardInterrupt: when interrupted, after the tasks at hand have been stopped.
        """
        threads = self.threads or max(1, (os.cpu_count() or 1) // self.workers)
        # Jobs run while `held` is open: it closes when they are to stop, or this process dies.
        parent, held = multiprocessing.get_context("spawn").Pipe(duplex=False)
        with parent, ThreadPoolExecutor(self.workers) as pool:
            futures: dict[Future[None], Task] = {
                pool.submit(self._do, task, threads, parent, held): task for task in tasks
            }
            try:
                while futures:
                    ended, _ = wait(futures, _TICK, FIRST_COMPLETED)
                    yield [futures.pop(future) for future in ended]
            finally:
                held.close()
                pool.shutdown(wait=False, cancel_futures=True)

    def _do(self, task: Task, threads: int, parent: Connection, held: Connection) -> None:
        """Run a task until it is done, or has failed too often."""
        context = multiprocessing.get_context("spawn")
        for _ in range(1 + self.retries):
            if held.closed:
                return
            process = context.Process(target=_attempt, args=(task, threads, parent), name=task.name)
            process.start()
            process.join()
            if process.exitcode in (_OK, _STOPPED, _KILLED_AT_START):
                return
            if process.exitcode != _FAILED:
                task.give_up(f"Its process ended with code {process.exitcode}.")


def _attempt(task: Task, threads: int, parent: Connection) -> None:
    """Run a task in this process until `parent` closes, then end the process."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C goes to the parent alone, which closes its end
    # A shell starts what runs in the background with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported
    if parent.poll():  # it has closed while this process started
        os._exit(_STOPPED)
    try:
        threading.Thread(target=_stop_with, args=(parent,), daemon=True).start()
        task.attempt()
    except StremnError:
        os._exit(_FAILED)
    except KeyboardInterrupt:
        os._exit(_STOPPED)
    os._exit(_OK)


def _stop_with(parent: Connection) -> None:
    """Stop this process in a resumable state when `parent` closes."""
    parent.poll(None)
    os.kill(os.getpid(), signal.SIGINT)
