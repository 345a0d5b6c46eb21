"""Run jobs on a Ray cluster: Ray schedules each job, and restarts it if a machine dies."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from stremn.batch.attempts import Task
from stremn.errors import MissingExtraError, StremnError

_TICK = 0.5  # seconds between two looks at how it goes
_KNOCK = 5.0  # seconds in which a cluster must answer
_GRACE = 30.0  # seconds that jobs have to stop in


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster whose machines have stremn installed and share the same folders.

    Attributes:
        address: `auto` (the cluster of this machine), HOST:PORT, or ray://HOST:PORT.
        retries: how often a failed job is tried again.
        cpus: cores that a job needs.
        gpus: GPUs that a job needs; several jobs may share one.

    Raises:
        MissingExtraError: Ray is not installed.
    """

    address: str = "auto"
    retries: int = 1
    cpus: float = 1
    gpus: float = 0

    def __post_init__(self) -> None:
        if find_spec("ray") is None:
            raise MissingExtraError("ray", "cluster")

    def run(self, tasks: Sequence[Task]) -> Generator[list[Task]]:
        """Run the tasks; yield from time to time those that have ended since the last time.

        Raises:
            StremnError: no cluster answers at the address.
        """
        send_token()
        import ray

        self._connect()
        waiting: dict[Any, Task] = {}
        try:
            remote = ray.remote(_attempt)
            needs = {"num_cpus": self.cpus, "num_gpus": self.gpus}
            again = {"max_retries": self.retries, "retry_exceptions": True}
            for task in tasks:
                waiting[remote.options(name=task.name, **needs, **again).remote(task)] = task
            while waiting:
                ended, _ = ray.wait(list(waiting), timeout=_TICK)
                for future in ended:
                    _keep_failure(future, waiting[future])
                yield [waiting.pop(future) for future in ended]
        finally:
            for future in waiting:
                ray.cancel(future)  # as Ctrl-C does: the job is made resumable
            if waiting:
                ray.wait(list(waiting), num_returns=len(waiting), timeout=_GRACE)
            ray.shutdown()

    def _connect(self) -> None:
        import ray

        try:
            _knock(self.address)  # Ray itself would wait for minutes
            ray.init(
                self.address,
                namespace="stremn",
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
        except (ConnectionError, OSError, RuntimeError, ValueError) as error:
            reason = str(error).strip().splitlines()[0].rstrip(".")
            raise StremnError(
                f"No Ray cluster answers at {self.address} ({reason}). Start one with "
                "`ray start --head`, or give the address that it printed. On another machine, copy "
                "~/.ray/auth_token from the first."
            ) from error


def send_token() -> None:
    """Make Ray send this user's token, if there is one; call this before Ray is imported.

    Clusters of newer Ray ask for it. Ray sends it by itself to the cluster `auto`, to one that
    is named only if the environment says so. A cluster that asks for none takes it too.
    """
    kept = Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or Path.home() / ".ray" / "auth_token")
    if os.environ.get("RAY_AUTH_TOKEN") or kept.is_file():
        os.environ.setdefault("RAY_AUTH_MODE", "token")


def _knock(address: str) -> None:
    """Raise `OSError` if nothing listens at HOST:PORT or ray://HOST:PORT; other forms pass."""
    host, colon, port = address.removeprefix("ray://").rpartition(":")
    if colon and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=_KNOCK).close()


def _attempt(task: Task) -> None:
    task.attempt()


def _keep_failure(future: Any, task: Task) -> None:
    """Record in a task's report that its worker died; other failures are already in it."""
    import ray

    try:
        ray.get(future)
    except ray.exceptions.RayTaskError:
        pass
    except ray.exceptions.RayError as error:
        task.give_up(" ".join(str(error).split()))
