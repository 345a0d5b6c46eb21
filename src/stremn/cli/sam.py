"""What `stremn segment` does differently with a SAM model."""

from __future__ import annotations

from collections.abc import Set
from pathlib import Path
from typing import TYPE_CHECKING

from stremn.errors import StremnError

if TYPE_CHECKING:
    from stremn.sam.prompts import Prompt
    from stremn.sam.sessions import SamSession

MEANINGLESS = {
    "size": "a SAM model sees every frame at a size of its own",
    "reach": "a SAM model always reads the whole frame",
    "every": "a SAM model has every frame remembered",
    "adapt": "only this package's own networks can be adapted",
}
"""Options of `segment` that a SAM model cannot honour, and why."""


def refuse_for_sam(given: Set[str]) -> None:
    """Refuse options that a SAM model cannot honour.

    Raises:
        StremnError: one was given.
    """
    for name, reason in MEANINGLESS.items():
        if name in given:
            raise StremnError(f"--{name} has no meaning here: {reason}. Leave it out.")


def sam_session(
    state: Path | None,
    model: str,
    *,
    device: str,
    precision: str,
    memory_slots: int | None,
    policy: str,
    first: tuple[str | None, str | None, str | None] | None,
) -> SamSession:
    """Go on from a saved state, or start anew; `first` is --box, --click and --exclude."""
    from stremn.sam.sessions import SamSession

    prompt = None if first is None else first_prompt(*first)
    if state is not None:
        return SamSession.load(state, model, device=device)
    session = SamSession.from_pretrained(
        model, device=device, precision=precision, memory_slots=memory_slots, policy=policy
    )
    if prompt is not None:
        session.expect({1: prompt})
    return session


def first_prompt(box: str | None, click: str | None, exclude: str | None) -> Prompt:
    """Return what the options say of object 1 in the first frame, in pixels."""
    from stremn.media.prompts import parse_box, parse_points
    from stremn.sam.prompts import Prompt

    if box is not None and click is not None:
        raise StremnError("Say which object to follow in one way; got --box and --click together.")
    corners = None if box is None else parse_box(box)
    return Prompt(
        None if corners is None else tuple(corners),
        parse_points(click) if click else (),
        parse_points(exclude) if exclude else (),
    )
