"""Collect what is wrong with training data, to report it together."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from stremn.errors import StremnError
from stremn.moved import moved_names

MOST_LISTED = 30
"""Problems named one by one in an error; the rest is counted."""


@dataclass(frozen=True)
class DataProblem:
    """An item of a data set that cannot be used for training: where it is, and what is wrong."""

    where: str
    reason: str


LeaveOut = Callable[[DataProblem], None]
"""Called for something that cannot be used and was left out."""


def first_lines(problems: Sequence[str]) -> str:
    """Return the first problems, a line each, and how many more there are."""
    more = len(problems) - MOST_LISTED
    rest = [f"and {more} more"] if more > 0 else []
    return "\n".join(f"  {line}" for line in [*problems[:MOST_LISTED], *rest])


def refuse(problems: Sequence[DataProblem]) -> None:
    """Raise one StremnError that lists all problems; do nothing if there are none."""
    if not problems:
        return
    listed = first_lines([f"{problem.where}: {problem.reason}" for problem in problems])
    raise StremnError(
        f"{len(problems)} problem(s) in the training data:\n{listed}"
        '\nRepair them, or leave out what is named here (in a recipe: data.check = "skip").'
    )


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
