"""Check single arguments that users pass."""

from __future__ import annotations

import math
import operator
from contextlib import suppress
from numbers import Real

import numpy as np

from stremn.errors import StremnError


def whole_number(value: object, name: str, low: int, high: int, advice: str = "") -> int:
    """Return `value` as an int.

    Raises:
        StremnError: it is no whole number (True and 2.0 are none), or not in [low, high].
    """
    number = None
    truth = isinstance(value, bool | np.bool_) or "bool" in str(getattr(value, "dtype", ""))
    if not truth and getattr(value, "ndim", 0) == 0:  # arrays and tensors of one number count
        with suppress(TypeError, ValueError, RuntimeError):
            number = operator.index(value)  # type: ignore[arg-type]
    if number is None:
        raise StremnError(f"{name} must be a whole number, got {_shown(value)}.{_after(advice)}")
    if not low <= number <= high:
        bound = f"at least {low}" if number < low else f"at most {high}"
        raise StremnError(f"{name} must be {bound}, got {_shown(number)}.{_after(advice)}")
    return number


def real_number(value: object, name: str, advice: str = "") -> float:
    """Return `value` as a float, perhaps infinite.

    Raises:
        StremnError: it is no number, or NaN.
    """
    real = isinstance(value, Real) and not isinstance(value, bool | np.bool_)
    try:
        number = float(value) if real else math.nan  # type: ignore[arg-type]
    except OverflowError:
        number = math.inf
    if math.isnan(number):
        raise StremnError(f"{name} must be a number, got {_shown(value)}.{_after(advice)}")
    return number


def _after(advice: str) -> str:
    return f" {advice}" if advice else ""


def _shown(value: object) -> str:
    """Return a value as short text for a message."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 80 else f"{text[:77]}..."
