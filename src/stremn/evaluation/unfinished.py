"""What a command that is interrupted, or fails, says of the results that it has written."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

logger = logging.getLogger(__name__)


@contextmanager
def telling_what_is_kept(kept: Callable[[], str]) -> Iterator[None]:
    """Log what is on the disk if the block is interrupted or fails; the exception goes on.

    Args:
        kept: returns a sentence that says which results are there and where; "" if there are none.
    """
    try:
        yield
    except BaseException:  # also Ctrl-C, which is no Exception
        sentence = kept()
        if sentence:
            logger.warning("Stopped before the end. %s", sentence)
        raise
