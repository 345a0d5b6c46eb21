"""Options that several commands share."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable
from dataclasses import MISSING, dataclass, fields, is_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

import typer

from stremn.errors import StremnError
from stremn.networks.defaults import PUBLISHED, SHIPPED

if TYPE_CHECKING:
    from stremn.networks.defaults import SessionDefaults
    from stremn.segmentation.opening import Asked

_MODEL = (
    "Preset (`small`), weights file (.safetensors), folder with one, or Hugging Face hub id "
    "(owner/name or owner/name@REVISION)"
)
Model = Annotated[str, typer.Option(help=f"{_MODEL}.")]
SLOTS = "Memory slots (K): templates kept per object."
Slots = Annotated[int, typer.Option(help=SLOTS)]
Policy = Annotated[
    str,
    typer.Option(
        help="Replacement rule: `evidence` (default), `learned` (the paper's), `oldest`, "
        "`spread`, ... docs/concepts.md lists all rules."
    ),
]
Device = Annotated[str, typer.Option(help="Device: auto, cpu, cuda, mps.")]
Precision = Annotated[
    str,
    typer.Option(
        help="Number format: float32, bfloat16, or auto (bfloat16 where the hardware is fast)."
    ),
]
Reach = Annotated[
    float | None,
    typer.Option(
        help="Search window: how far an object may move from one frame to the next, in object "
        f"sizes; `inf` searches the whole frame. Default: {SHIPPED.reach} for `small`, inf for "
        "STM, STCN."
    ),
]
Size = Annotated[
    int | None,
    typer.Option(
        help="Working resolution: shorter side in pixels that frames are resized to for the "
        "network. Smaller is faster. Masks have the size of the video. Default: "
        f"{SHIPPED.size} for `small`, {PUBLISHED.size} for STM, STCN."
    ),
]
PROMPT_MODEL = (
    "Model that turns a box or clicks into a mask: `small` (shipped), a weights file, or "
    "`grabcut` (colors only, no network)."
)
PromptModel = Annotated[str, typer.Option(help=PROMPT_MODEL)]
AnyModel = Annotated[
    str,
    typer.Option(help=f"{_MODEL}; or SAM 2.1, EdgeTAM, SAM 3 by hub id or folder (extra `sam`)."),
]
Every = Annotated[
    int | None,
    typer.Option(
        help=f"Memorize every n-th frame only. Default: {SHIPPED.every} for `small`, "
        f"{PUBLISHED.every} for STM, STCN."
    ),
]
Adapt = Annotated[
    int,
    typer.Option(
        min=0,
        help="Training steps on the first frame and its mask before the video is segmented, such "
        "as 150. Masks get better, and the run takes minutes longer. 0 turns it off. Needs the "
        "extra `train`.",
    ),
]
Out = Annotated[Path, typer.Option("--out", "-o", help="Folder for the results.")]


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Let a command take groups of options: parameters whose types are dataclasses.

    Each field of such a class, `Annotated` as typer wants it, becomes an option of the command.
    """
    options: list[inspect.Parameter] = []
    groups: dict[str, tuple[Any, list[str]]] = {}
    hints = get_type_hints(command, include_extras=True)
    for parameter in inspect.signature(command).parameters.values():
        kind = hints[parameter.name]
        found = [(parameter.name, kind, parameter.default)]
        if is_dataclass(kind):
            own = get_type_hints(kind, include_extras=True)
            found = [(f.name, own[f.name], _default(f.default)) for f in fields(kind)]
            groups[parameter.name] = (kind, [name for name, _, _ in found])
        options += [
            inspect.Parameter(name, parameter.KEYWORD_ONLY, default=default, annotation=hint)
            for name, hint, default in found
        ]

    def run(**values: Any) -> None:
        for name, (kind, names) in groups.items():
            values[name] = kind(**{option: values.pop(option) for option in names})
        command(**values)

    run.__name__, run.__doc__ = command.__name__, command.__doc__
    run.__annotations__ = {option.name: option.annotation for option in options}
    run.__signature__ = inspect.Signature(options)  # type: ignore[attr-defined]
    return run


def _default(value: object) -> object:
    return inspect.Parameter.empty if value is MISSING else value


@dataclass(frozen=True)
class SessionOptions:
    """How objects are followed; None is the model's default."""

    slots: Annotated[
        int | None,
        typer.Option(
            help=f"{SLOTS} Default: {SHIPPED.memory_slots}; for SAM models 7, as in training."
        ),
    ] = None
    policy: Annotated[
        str | None,
        typer.Option(
            help="Replacement rule: `evidence` (default), `learned` (the paper's), `oldest` "
            "(default for SAM models), `spread`, ... docs/concepts.md lists all rules."
        ),
    ] = None
    device: Device = "auto"
    precision: Precision = "auto"
    size: Size = None
    reach: Reach = None
    every: Every = None

    def asked(self, seed: int = 0) -> Asked:
        """Return the options as models take them.

        Raises:
            StremnError: a reach below 0.
        """
        from stremn.segmentation.opening import Asked

        if self.reach is not None:
            within(self.reach)
        how = self.precision, self.device, seed
        return Asked(self.slots, self.policy, self.size, self.reach, self.every, *how)


def asked(model: str, size: int | None, reach: float | None, every: int | None) -> SessionDefaults:
    """Return the user's size, reach and every, with the model's defaults for those not given.

    Raises:
        StremnError: an unknown model, or a reach below 0.
    """
    from stremn.networks.pretrained import config_of

    usual = config_of(model).usual
    return replace(
        usual,
        size=usual.size if size is None else size,
        reach=usual.reach if reach is None else within(reach),
        every=usual.every if every is None else every,
    )


def within(reach: float) -> float | None:
    """Return the reach as sessions take it; infinity becomes None.

    Raises:
        StremnError: below 0, or not a number.
    """
    if not reach >= 0:
        raise StremnError(f"--reach must be 0 or more, in object sizes, or inf; got {reach}.")
    return None if math.isinf(reach) else reach
