"""What `stremn evaluate` runs with a SAM model."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from stremn.errors import StremnError

if TYPE_CHECKING:
    from stremn.evaluation.segmentation.runs import RunDescription, Session
    from stremn.sam.opening import SamVideoModel
    from stremn.segmentation.opening import Asked


def sam_run(
    model: SamVideoModel, asked: Asked, *, scales: tuple[float, ...], flip: bool, adapt: int
) -> tuple[RunDescription, Callable[[], Session]]:
    """Return what is run, for the record, and what makes a session that has seen nothing.

    Raises:
        StremnError: something that a SAM model cannot honour.
    """
    from stremn.core.hardware import pick_device, precision_name
    from stremn.evaluation.segmentation.runs import RunDescription

    if scales != (1.0,) or flip:
        raise StremnError(
            "--scales and --flip cannot be honoured: a SAM model sees every frame once, at a size "
            "of its own. Leave them out."
        )
    if adapt:
        model.check_adaptable()
    settled = model.settled(asked)
    assert settled.memory_slots is not None  # settled
    assert settled.policy is not None
    run = RunDescription(
        model.source,
        settled.policy,
        settled.memory_slots,
        model.side,
        seed=settled.seed,
        weights=f"{model.fingerprint():08x}",
        precision=precision_name(settled.precision, pick_device(settled.device)),
    )
    return run, lambda: model.open(settled)
