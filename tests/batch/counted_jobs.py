"""Jobs that write their attempts down, for workers of every kind; quick to import."""

import os
import signal
import time
from pathlib import Path

from stremn.batch.attempts import Task
from stremn.errors import StremnError


def count(arguments: list[str]) -> None:
    """A job that writes its attempts down: it fails, dies or waits as its arguments say."""
    out = Path(arguments[arguments.index("-o") + 1])
    with (out / "attempts").open("a") as file:
        file.write("x")
    made = len((out / "attempts").read_text())
    print("told")
    if "wait" in arguments:
        while not (out / "go").exists():
            time.sleep(0.02)
    if f"fail-{made}" in arguments or "fail" in arguments:
        raise StremnError("It cannot be.")
    if f"die-{made}" in arguments:
        os.kill(os.getpid(), signal.SIGKILL)
    if "break" in arguments:
        raise ValueError("broken")


def tasks(out: Path, *wishes: str) -> list[Task]:
    return [Task(f"job{i}", (wish,), out / f"job{i}", count) for i, wish in enumerate(wishes)]


def attempts(task: Task) -> int:
    return len((task.folder / "attempts").read_text())
