"""Reopen network streams that break off."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from time import monotonic, sleep

from stremn.errors import StremnError
from stremn.media.frames import Shot

logger = logging.getLogger(__name__)

WAITS = (1.0, 2.0, 5.0, 10.0, 10.0)
"""Seconds before each new try; after the last one a stream is given up."""


def reconnecting(
    shots: Iterator[Shot],
    reopen: Callable[[], Iterator[Shot]],
    label: str,
    wait: Callable[[float], None] = sleep,
) -> Iterator[Shot]:
    """Yield the frames of a stream, and reopen it when it breaks off or ends.

    Args:
        shots: of the stream, opened.
        reopen: opens it again; raises StremnError if that is not possible.
        label: the stream, for messages.
        wait: sleeps for some seconds.

    Yields:
        Frames, with the seconds since the first; a break is a gap in them.

    Raises:
        StremnError: it could not be opened again, after as many tries as there are `WAITS`.
    """
    began: float | None = None
    while True:
        try:
            for shot in shots:
                now = monotonic()
                began = now if began is None else began
                yield Shot(shot.image, now - began)
            reason = "it ended"
        except StremnError as error:
            reason = str(error).rstrip(".")
        finally:
            close = getattr(shots, "close", None)
            if close is not None:
                close()
        for seconds in WAITS:
            logger.warning("%s broke off (%s). Trying again in %g s.", label, reason, seconds)
            wait(seconds)
            try:
                shots = reopen()
                break
            except StremnError as error:
                reason = str(error).rstrip(".")
        else:
            raise StremnError(
                f"{label} broke off and could not be opened again in {len(WAITS)} tries: {reason}."
            )
