"""Validate a model during training: held-out sequences through a session, the memory probe."""

from __future__ import annotations

import copy
from itertools import islice
from pathlib import Path
from typing import cast

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import nn

from stremn.core.atomic_files import replacing
from stremn.data.clips.clip import ClipBatch
from stremn.data.readers.sequences import SequenceSet, VideoSequence
from stremn.errors import StremnError
from stremn.evaluation.segmentation.evaluation import counted, predict
from stremn.evaluation.segmentation.metrics import region_similarity
from stremn.media.files import make_folder
from stremn.media.masks import overlay
from stremn.networks.model import STReMN
from stremn.segmentation.sessions import SegmentationSession
from stremn.training.segmentation.rollout import probe
from stremn.training.segmentation.stakes import stakes

STRIP = 6
"""Frames in the picture of a sequence."""
STRIP_HEIGHT = 160
"""Height of that picture in pixels."""


class StreamedValidation:
    """Streams sequences through a session and scores them by their data set's rule."""

    def __init__(
        self,
        sequences: SequenceSet,
        *,
        device: str,
        size: int,
        memory_slots: int,
        policy: str,
        frames: int | None = None,
        clips: ClipBatch | None = None,
    ) -> None:
        """Store what all validations of a run share.

        Args:
            sequences: to score.
            device: the session's, as size, memory_slots and policy are.
            size: working resolution: shorter side in pixels.
            memory_slots: K.
            policy: name of the replacement rule.
            frames: number of frames of each sequence to use; None: all.
            clips: for the memory probe and the stakes of an eviction; None leaves both out.
        """
        self._sequences = sequences
        self._device, self._size = device, size
        self._slots, self._policy = memory_slots, policy
        self._frames = frames
        self._clips = clips
        self._strips: dict[str, UInt8[np.ndarray, "h w 3"]] = {}

    def scores(self, model: nn.Module) -> dict[str, float]:
        """Return "J", the mean over all objects, "J_<sequence>", the probe's three numbers, and how
        much an eviction matters."""
        # A copy: the session changes the precision of the weights that it is given.
        network = copy.deepcopy(cast(STReMN, model))
        found = {sequence.name: self._score(network, sequence) for sequence in self._sequences}
        every = [j for objects in found.values() for j in objects]
        if not every:
            raise StremnError("Validation has no frame to score; raise validation.frames.")
        result = {"J": float(np.mean(every))}
        result |= {f"J_{name}": float(np.mean(row)) for name, row in found.items() if row}
        if self._clips is not None:
            clips = self._clips.to(next(model.parameters()).device)
            result |= probe(cast(STReMN, model), clips, memory_slots=self._slots)
            result |= stakes(cast(STReMN, model), clips)
        return result

    def pictures(self, _: nn.Module, folder: Path) -> None:
        """Write pictures of the last validation: a strip for each sequence."""
        make_folder(folder)
        for name, strip in self._strips.items():
            with replacing(folder / f"{name}.jpg") as temporary:
                Image.fromarray(strip).save(temporary, quality=85)

    def _score(self, model: STReMN, sequence: VideoSequence) -> list[float]:
        """Score each object over the frames that count (mean J); keep a strip of pictures."""
        session = SegmentationSession(
            model,
            device=self._device,
            memory_slots=self._slots,
            policy=self._policy,
            size=self._size,
            reach=None,
        )
        length = len(sequence) if self._frames is None else min(self._frames, len(sequence))
        shown = {round(i * (length - 1) / (STRIP - 1)) for i in range(STRIP)}
        scored = counted(sequence, self._sequences.rule)
        rows: dict[int, list[float]] = {i: [] for i in sequence.objects}
        tiles = []
        for t, labels in enumerate(islice(predict(sequence, session), length)):
            if t in shown:
                tiles.append(_tile(overlay(sequence.frame(t), labels)))
            truth = sequence.label(t) if t in scored else None
            if truth is not None:
                for i in scored[t]:
                    rows[i].append(region_similarity(labels == i, truth == i))
        self._strips[sequence.name] = np.hstack(tiles)
        return [float(np.mean(row)) for row in rows.values() if row]


def _tile(frame: UInt8[np.ndarray, "height width 3"]) -> UInt8[np.ndarray, "h w 3"]:
    width = round(frame.shape[1] * STRIP_HEIGHT / frame.shape[0])
    return np.asarray(Image.fromarray(frame).resize((width, STRIP_HEIGHT)))
