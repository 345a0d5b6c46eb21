"""Checks every annotation of the package at run time, tensor shapes too, while tests run."""

from collections.abc import Callable
from typing import Any

from beartype import BeartypeConf, beartype
from beartype.roar import BeartypeDecorHintException

check = beartype(conf=BeartypeConf(is_pep484_tower=True))  # an int is a float


def checked(function: Callable[..., Any]) -> Callable[..., Any]:
    """Return `function` checking its arguments and result, but for hints that cannot be checked.

    Those are protocols that are not `runtime_checkable`, and `Self`.
    """
    try:
        return check(function)
    except BeartypeDecorHintException:
        hints = function.__annotations__
        function.__annotations__ = {n: h for n, h in hints.items() if _can_check(function, n, h)}
        return check(function)


def _can_check(function: Callable[..., Any], name: str, hint: object) -> bool:
    function.__annotations__ = {name: hint}
    try:
        check(function)
    except BeartypeDecorHintException:
        return False
    return True
