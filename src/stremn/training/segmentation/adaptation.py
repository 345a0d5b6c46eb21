"""Adapt a network to the objects of one video before it is segmented.

Not in the paper, whose weights stay as they were trained. Clips made of the given frame and its
mask (`stremn.data.clips.given_frame`) train the network for a moment, with the loss and the loop of
every other training. The mean of the weights before and after is taken: it knows these objects
better, and has not unlearned what one frame cannot show.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import cast

from torch import nn

from stremn.core.hardware import is_out_of_memory, pick_device
from stremn.data.clips.clip import Clip, ClipBatch, ClipDataset, Stage, collate
from stremn.data.clips.given_frame import GivenFrameClips
from stremn.errors import StremnError
from stremn.evaluation.segmentation.run_description import Labelled, Segmenter
from stremn.media.frames import Picture
from stremn.media.masks import Labels
from stremn.networks.model import STReMN
from stremn.networks.presets import frozen_parameters
from stremn.networks.pretrained import Pretrained
from stremn.segmentation.inputs import FrameInput, MaskInput, as_rgb, given_masks
from stremn.training.averaging import average_weights
from stremn.training.config import TrainConfig
from stremn.training.fit import FitResult, Phase, fit
from stremn.training.loading import BatchLoss
from stremn.training.loss_report import LossReport
from stremn.training.optimization import NotFiniteError
from stremn.training.segmentation.rollout import ClipLoss

Watcher = Callable[[int, int], None]
"""Called with (steps done, steps in all) before every step and at the end; its errors end it."""

STEPS = 150
"""Optimizer steps, of one clip each, that are usually enough."""

FRAMES, SIDE = 3, 320
"""Length of a clip, and its side in pixels."""


def nobody(done: int, steps: int) -> None:
    """Do nothing."""


def adapt(
    pretrained: Pretrained,
    frame: FrameInput,
    mask: MaskInput,
    *,
    steps: int | None = None,
    seed: int = 0,
    device: str = "auto",
    watch: Watcher = nobody,
) -> Pretrained:
    """Return a model adapted to the objects of `mask`; the one given stays as it is.

    Like every training, this seeds the global random generators.

    Args:
        pretrained: the model to start from.
        frame: "height width 3" RGB uint8 array, PIL image, or tensor (channels first or last).
        mask: label map of the frame's size with any ids, 0 for background.
        steps: number of training steps of one clip each. None: `STEPS`.
        seed: of the clips.
        device: "auto", "cpu", ...; of several GPUs the first is used.
        watch: called with (steps done, steps in all).

    Raises:
        StremnError: no steps, a mask without object or of another size, objects too small, an
            unknown device, too little memory, or numbers that do not stay finite.
        MissingExtraError: accelerate is missing.
        KeyboardInterrupt: a signal to stop was received.
    """
    steps = STEPS if steps is None else steps
    if steps < 1:
        raise StremnError(f"steps must be at least 1, got {steps}. {STEPS} is usual.")
    on_cpu = pick_device(device).type == "cpu"
    image = as_rgb(frame)
    labels = given_masks(mask, (image.shape[0], image.shape[1])).labels
    model = copy.deepcopy(pretrained.model).float()
    frozen = set(frozen_parameters(model))
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name not in frozen)
    stage = Stage(clips=steps, frames=FRAMES, size=SIDE, weights={"given": 1.0})
    clips = ClipDataset({"given": GivenFrameClips(image, labels)}, [stage], seed)
    phase: Phase[Clip, ClipBatch] = Phase(
        "adaptation", steps, 1, clips, collate, _loss(steps, watch)
    )
    config = _config(steps, seed, on_cpu)
    with _in_its_own_words():
        result: FitResult = fit(model, [phase], config, out=None, bar=False)
    if result.stopped == "interrupted":
        raise KeyboardInterrupt
    watch(steps, steps)
    adapted = cast(STReMN, result.model).to("cpu").eval().requires_grad_(False)
    before = {name: x.cpu() for name, x in pretrained.model.state_dict().items()}
    adapted.load_state_dict(average_weights([adapted.state_dict(), before]))
    return Pretrained(adapted, pretrained.config)


@contextmanager
def _in_its_own_words() -> Iterator[None]:
    """Rephrase errors of training without its settings, which do not exist here."""
    try:
        yield
    except StremnError as error:
        if isinstance(error.__context__, NotFiniteError):
            why = "the numbers do not stay finite"
        elif error.__cause__ is not None and is_out_of_memory(error.__cause__):
            why = "it does not fit into the machine's memory"
        else:
            raise
        raise StremnError(
            f"Adapting failed: {why}. Follow the objects without it, or try another device."
        ) from error


def _loss(steps: int, watch: Watcher) -> BatchLoss[ClipBatch]:
    clip_loss = ClipLoss(memory_slots=FRAMES, dice=0.5, bootstrap=0.3, ramp=(0.0, 0.1))

    def watched(model: nn.Module, batch: ClipBatch, progress: float) -> LossReport:
        watch(round(progress * steps), steps)
        report = clip_loss(cast(STReMN, model), batch, progress)
        if not bool(report.loss.isfinite()):
            raise StremnError(
                f"Adapting failed at step {round(progress * steps)} of {steps}: the loss is not a "
                "number. Follow the objects without it."
            )
        return report

    return watched


class AdaptedSession:
    """A session that first adapts the network to the given masks.

    make_session: opens the session on the adapted network.
    """

    def __init__(
        self,
        pretrained: Pretrained,
        make_session: Callable[[STReMN], Segmenter],
        *,
        steps: int,
        device: str = "auto",
    ) -> None:
        self._pretrained = pretrained
        self._make_session = make_session
        self._steps = steps
        self._device = device
        self._session: Segmenter | None = None

    def step(self, frame: Picture, mask: Labels | None = None) -> Labelled:
        """Segment the next frame; the first one needs a mask. Raises StremnError without."""
        if self._session is None:
            if mask is None:
                raise StremnError("There is nothing to adapt to: give a mask with the first frame.")
            adapted = adapt(self._pretrained, frame, mask, steps=self._steps, device=self._device)
            self._session = self._make_session(adapted.model)
        return self._session.step(frame, mask)


def _config(steps: int, seed: int, on_cpu: bool) -> TrainConfig:
    return TrainConfig(
        steps=steps,
        seed=seed,
        lr=1e-4,
        lr_end=5e-6,
        lr_multipliers={"query_encoder": 0.5, "memory_encoder": 0.5},
        warmup_steps=min(5, steps - 1),
        weight_decay=1e-4,
        clip_norm=4.0,
        ema=0.95,
        precision="auto",
        device="cpu" if on_cpu else "auto",
        log_every=10,
        checkpoint_every=steps,
        validate_every=steps,
    )
