"""Section 4.1: segment several objects, each with its own memory."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Int32
from torch import Tensor

from stremn.memory.choices import Choice, UpdatePolicy
from stremn.memory.state import MemoryState, concat
from stremn.memory.writing import with_room_to_pin
from stremn.networks.backbones import STRIDE
from stremn.networks.model import Query, STReMN
from stremn.networks.windows import CONTEXT, Window, whole, windows_round
from stremn.segmentation.aggregation import (
    BOUND,
    aggregate,
    aggregate_fast,
    likeliest,
    object_masks,
    scatter,
    upsampled,
)


@dataclass(frozen=True)
class Track:
    """The memories of the objects between frames: one batch entry per object.

    `video` and `label` say whose entry it is: the index of the video in the batch, and the
    object's number in that video's label map (1, 2, ...).
    """

    state: MemoryState
    video: Int[Tensor, " n"]
    label: Int[Tensor, " n"]

    @classmethod
    def empty(
        cls,
        model: STReMN,
        video: Int[Tensor, " n"],
        label: Int[Tensor, " n"],
        slots: int,
        frame_size: tuple[int, int],
        growth: int = 0,
    ) -> Track:
        """Return a track of new objects, their memories empty."""
        return cls(model.empty_state(len(video), slots, frame_size, growth), video, label)

    @classmethod
    def of_one_video(cls, state: MemoryState) -> Track:
        """Return the track of one video's objects, numbered in the order of their memories."""
        entries = torch.arange(len(state.keys), device=state.keys.device)
        return cls(state, torch.zeros_like(entries), entries + 1)

    def join(self, other: Track) -> Track:
        """Return both tracks' entries in one."""
        return Track(
            concat([self.state, other.state]),
            torch.cat([self.video, other.video]),
            torch.cat([self.label, other.label]),
        )

    def select(self, entries: Int[Tensor, " m"]) -> Track:
        """Return the track of some entries."""
        return Track(self.state.select(entries), self.video[entries], self.label[entries])

    def with_entries(self, entries: Int[Tensor, " m"], track: Track) -> Track:
        """Return this track with some entries replaced by those of `track`."""
        if len(entries) == len(self.video):
            return track
        kept = torch.ones_like(self.video, dtype=torch.bool)
        kept[entries] = False
        others = kept.nonzero()[:, 0]
        return self.select(others).join(track).select(torch.cat([others, entries]).argsort())

    def logits(
        self,
        model: STReMN,
        query: Query,
        windows: Sequence[Window] | None = None,
        hints: Float[Tensor, "n 2 h w"] | None = None,
    ) -> Float[Tensor, "n 1 h4 w4"]:
        """Read each entry's memory (Eq 5) and decode its object's logits, at stride 4.

        With `windows`, for entries of one video, each object is searched for only in its window.
        `hints` are those of the whole frame, if they are known already (`STReMN.hints`).
        """
        hints = model.hints(self.state, query, self.video) if hints is None else hints
        if windows is None:
            return model.recall(self.state, query.take(self.video), hints)
        height, width = query.stem.shape[-2:]
        logits = query.stem.new_full((len(windows), 1, height, width), -BOUND)
        for entry, window in enumerate(windows):
            rows, columns = window.at(4)
            logits[entry, :, rows, columns] = self._within(model, query, entry, window, hints)
        return logits

    def _within(
        self,
        model: STReMN,
        query: Query,
        entry: int,
        window: Window,
        hints: Float[Tensor, "n 2 h w"] | None,
    ) -> Float[Tensor, "1 h4 w4"]:
        """Return the logits of one entry in its window."""
        hint = None if hints is None else window.cut(hints[entry : entry + 1], STRIDE)
        return model.recall(self.state.entry(entry), query.within(window), hint)[0]

    def recall(
        self, model: STReMN, query: Query, videos: int, objects: int
    ) -> Float[Tensor, "videos c height width"]:
        """Segment one frame of each video: log-probabilities of background and `objects` objects.

        c = 1 + objects. Each entry is segmented by itself, at stride 4, then brought to the
        frame's size and merged with the others of its video (see `aggregate`).
        """
        logits = upsampled(self.logits(model, query), query.frames)
        return aggregate(scatter(logits, self.video, self.label, videos, objects))

    def segment(
        self,
        model: STReMN,
        query: Query,
        windows: Sequence[Window] | None = None,
    ) -> Float[Tensor, "1 c height width"]:
        """Segment one frame of one video: probabilities of background and each entry.

        The entries are all of that video, in the order of their labels. Equal to
        `recall(...).exp()`, in fewer passes over the pixels. `windows`: see `logits`.
        """
        return _merged(self.logits(model, query, windows), query)

    def search(
        self,
        model: STReMN,
        query: Query,
        previous: Int32[np.ndarray, "height width"],
        reach: float,
    ) -> tuple[Float[Tensor, "1 c height width"], Int32[np.ndarray, "height width"]]:
        """Segment one frame of one video, searching for each object near its last place first.

        An object that is not found in its window is then searched for in the whole frame; the
        others are not read again.

        Args:
            model: the network.
            query: the frame.
            previous: the likeliest layer of each pixel in the previous frame.
            reach: see `windows.window_round`.

        Returns:
            Probabilities of background and each entry; the likeliest layer of each pixel.
        """
        grid = (query.key.shape[1], query.key.shape[2])
        windows = windows_round(previous, len(self.video), reach, grid, CONTEXT)
        hints = model.hints(self.state, query, self.video)
        logits = self.logits(model, query, windows, hints)
        found = _merged(logits, query)
        layers = likeliest(found[0])
        pixels = np.bincount(layers.ravel(), minlength=len(windows) + 1)
        lost = [
            entry
            for entry, window in enumerate(windows)
            if not pixels[entry + 1] and window != whole(grid)
        ]
        if not lost:
            return found, layers
        for entry in lost:
            logits[entry] = self._within(model, query, entry, whole(grid), hints)
        found = _merged(logits, query)
        return found, likeliest(found[0])

    def memorize(
        self,
        model: STReMN,
        query: Query,
        probabilities: Float[Tensor, "videos c height width"],
        *,
        frame: int,
        policy: UpdatePolicy,
        pin: bool | Bool[Tensor, " n"] = False,
        reuse: bool = False,
        windows: Sequence[Window] | None = None,
    ) -> tuple[Track, Choice]:
        """Write the frame under its soft label map into every entry's memory (Eq 4).

        `reuse` overwrites the track's memory in place (see `memory.write`). `windows`, for
        entries of one frame, say where each object is (see `STReMN.encode_memory_within`).
        """
        masks = object_masks(probabilities, self.video, self.label).to(query.stem.dtype)
        state, choice = model.memorize(
            self.state,
            query.take(self.video),
            masks,
            frame=frame,
            policy=policy,
            pin=pin,
            reuse=reuse,
            windows=windows,
        )
        return replace(self, state=state), choice

    def memorize_some(
        self,
        model: STReMN,
        query: Query,
        probabilities: Float[Tensor, "1 c height width"],
        frame: int,
        policy: UpdatePolicy,
        places: Sequence[int],
        pin: Sequence[bool],
        windows: Sequence[Window] | None,
        *,
        in_place: bool,
    ) -> tuple[Track, Int[Tensor, "m k"], Choice]:
        """Write the frame into the memories of some entries, and make room for those to pin.

        Args:
            model: the network.
            query: the frame.
            probabilities: its soft label map.
            frame: its index.
            policy: the replacement rule.
            places: the entries.
            pin: whether to pin the frame in each of them.
            windows: as in `memorize`.
            in_place: whether the track's memory may be overwritten.

        Returns:
            The track of all entries; the frames that those entries held before; the choice made.
        """
        entries = torch.tensor(places, device=self.label.device)
        copied = len(places) < len(self.label)
        track = self.select(entries) if copied else self
        held = track.state.written_at
        wanted = torch.tensor(pin, device=self.label.device)
        state, pinned = with_room_to_pin(track.state, frame, wanted)
        track, choice = replace(track, state=state).memorize(
            model, query, probabilities, frame=frame, policy=policy, pin=pinned,
            reuse=copied or in_place, windows=windows,
        )  # fmt: skip
        return self.with_entries(entries, track), held, choice


def _merged(logits: Float[Tensor, "n 1 h4 w4"], query: Query) -> Float[Tensor, "1 c height width"]:
    """Bring the logits of one video's entries to the frame's size and merge them."""
    return aggregate_fast(upsampled(logits, query.frames)[None])
