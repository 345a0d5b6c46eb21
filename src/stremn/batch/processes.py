"""Run jobs on one machine, a given number at a time, each in its own process."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
import time
from collections.abc import Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.process import BaseProcess

from stremn.batch.attempts import Task
from stremn.errors import StremnError

_OK, _FAILED, _STOPPED = 0, 2, 130
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
        running: set[BaseProcess] = set()
        stop = threading.Event()
        with ThreadPoolExecutor(self.workers) as pool:
            futures: dict[Future[None], Task] = {
                pool.submit(self._do, task, threads, running, stop): task for task in tasks
            }
            try:
                while futures:
                    ended, _ = wait(futures, _TICK, FIRST_COMPLETED)
                    yield [futures.pop(future) for future in ended]
            finally:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                for process in tuple(running):
                    _interrupt(process)

    def _do(
        self, task: Task, threads: int, running: set[BaseProcess], stop: threading.Event
    ) -> None:
        """Run a task until it is done, or has failed too often."""
        context = multiprocessing.get_context("spawn")
        for _ in range(1 + self.retries):
            if stop.is_set():
                return
            process = context.Process(target=_attempt, args=(task, threads), name=task.name)
            process.start()
            running.add(process)
            if stop.is_set():
                _interrupt(process)
            process.join()
            running.discard(process)
            if process.exitcode in (_OK, _STOPPED):
                return
            if process.exitcode != _FAILED:
                task.give_up(f"Its process ended with code {process.exitcode}.")


def _interrupt(process: BaseProcess) -> None:
    if process.pid is not None and process.is_alive():
        with suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGINT)


def _attempt(task: Task, threads: int) -> None:
    """Run a task in this process, then end the process."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C goes to the parent alone, which passes it on
    # A shell starts what runs in the background with SIGINT ignored, and children inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.environ["OMP_NUM_THREADS"] = str(threads)  # before torch is imported
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        task.attempt()
    except StremnError:
        os._exit(_FAILED)
    except KeyboardInterrupt:
        os._exit(_STOPPED)
    os._exit(_OK)


def _end_with_parent() -> None:
    """Stop this process in a resumable state when its parent has died."""
    parent = multiprocessing.parent_process()
    while parent is not None and parent.is_alive():
        time.sleep(_TICK)
    os.kill(os.getpid(), signal.SIGINT)
