"""Section 3.1, Fig 1: STReMN = query encoder + memory encoder + memory + decoder.

    state, choice = model.memorize(state, query, masks, frame=t, policy=policy)
    logits = model.recall(state, model.encode_query(frames))

State goes in and comes out; the model remembers nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from stremn.memory.choices import Choice, UpdatePolicy
from stremn.memory.matching import EQUATION_5, Matching
from stremn.memory.reading import read
from stremn.memory.state import MemoryState, Template
from stremn.memory.summary import beside_rivals, frame_sums, likeness
from stremn.memory.writing import Write, write
from stremn.networks.backbones import STRIDE
from stremn.networks.decoders import Decoder
from stremn.networks.encoders import ImageEncoder, MemoryEncoder
from stremn.networks.hints import ObjectHint, shown_features
from stremn.networks.windows import Window
from stremn.networks.working_size import Margins


@dataclass(frozen=True)
class Query:
    """All that is computed once per frame, for all objects.

    `key` and `value` are k^Q and v^Q of Eq 5; `skips` go to the decoder; `frames`, `stem` and
    `features` (stride 16) to the memory encoder. `frames` are in [0, 1]. `shown` is what summaries
    are of (`shown_features`); networks without summaries have none.
    """

    key: Float[Tensor, "b h w ck"]
    value: Float[Tensor, "b h w cv"]
    skips: tuple[Tensor | None, Tensor | None]
    frames: Float[Tensor, "b 3 height width"]
    stem: Float[Tensor, "b c4 h4 w4"]
    features: Float[Tensor, "b c16 h w"]
    shown: Float[Tensor, "b c h w"] | None = None

    def take(self, videos: Int[Tensor, " n"]) -> Query:
        """Return the query of each entry, given the video it belongs to."""
        every = self._map(lambda x: _of_videos(x, videos))
        # Of one video the skips serve all entries as they are.
        return replace(every, skips=self.skips) if self.key.shape[0] == 1 else every

    def first(self) -> Query:
        """Return the query of the first entry: views, not copies."""
        return self._map(lambda x: x[:1])

    def _map(self, change: Callable[[Tensor], Tensor]) -> Query:
        """Change every tensor."""
        skip8, skip4 = self.skips
        return Query(
            change(self.key),
            change(self.value),
            (None if skip8 is None else change(skip8), None if skip4 is None else change(skip4)),
            change(self.frames),
            change(self.stem),
            change(self.features),
            None if self.shown is None else change(self.shown),
        )

    def within(self, window: Window) -> Query:
        """Return the query of a part of the frame."""
        rows, columns = window.at(STRIDE)
        skip8, skip4 = self.skips
        return Query(
            self.key[:, rows, columns],
            self.value[:, rows, columns],
            (
                None if skip8 is None else window.cut(skip8, 8),
                None if skip4 is None else window.cut(skip4, 4),
            ),
            window.cut(self.frames, 1),
            window.cut(self.stem, 4),
            window.cut(self.features, STRIDE),
            None if self.shown is None else window.cut(self.shown, STRIDE),
        )


def _of_videos(x: Float[Tensor, "b *x"], videos: Int[Tensor, " n"]) -> Float[Tensor, "n *x"]:
    """Return the tensor of each entry's video; of one video, the same for all entries, uncopied."""
    return x.expand(len(videos), *x.shape[1:]) if x.shape[0] == 1 else x[videos]


class Projection(nn.Module):
    """A 3x3 convolution from features at stride 16 to a map with channels last."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1)

    def forward(self, features: Float[Tensor, "b i h w"]) -> Float[Tensor, "b h w o"]:
        """Return the projected map."""
        return self.conv(features).permute(0, 2, 3, 1)


class STReMN(nn.Module):
    """The network of Fig 1, made of parts that are passed in.

    Networks differ in what they project (`Projection`) before it is stored:

    - `memory_key` None: what is stored is the frame's own key, one for all objects (STCN).
    - `memory_value` None: the memory encoder's features are the value.
    - `update_key` None: Eq 1 compares keys.

    `widths` are the channels of key, value and update key. `policies` are the update policies that
    have weights or settings of their own, by name; any other `UpdatePolicy` can be given to
    `memorize`. `matching` says how the memory is read; `write` stores templates;
    `margins` is what frames are padded with (see `WorkingSize`). With `hint`, not in the paper,
    each object has a summary beside its slots (`memory.summary`), which the decoder sees too.
    """

    def __init__(
        self,
        *,
        query_encoder: ImageEncoder,
        memory_encoder: MemoryEncoder,
        decoder: Decoder,
        query_key: Projection,
        query_value: Projection,
        memory_key: Projection | None,
        memory_value: Projection | None,
        update_key: Projection | None,
        widths: Mapping[str, int],
        policies: Mapping[str, nn.Module],
        matching: Matching = EQUATION_5,
        write: Write = write,
        margins: Margins = "edge",
        hint: ObjectHint | None = None,
    ) -> None:
        super().__init__()
        self.query_encoder = query_encoder
        self.memory_encoder = memory_encoder
        self.query_key = query_key
        self.query_value = query_value
        self.memory_key = memory_key
        self.memory_value = memory_value
        self.update_key = update_key
        self.decoder = decoder
        self.policies = nn.ModuleDict(dict(policies))
        self.widths = dict(widths)
        self.matching = matching
        self.write = write
        self.margins: Margins = margins
        self.hint = hint

    def empty_state(
        self, entries: int, slots: int, frame_size: tuple[int, int], growth: int = 0
    ) -> MemoryState:
        """Return an empty memory for frames of (height, width), both multiples of 16."""
        weight = self.query_key.conv.weight
        height, width = frame_size
        return MemoryState.empty(
            entries,
            slots,
            (height // STRIDE, width // STRIDE),
            **self.widths,
            growth=growth,
            summary=0 if self.hint is None else self.hint.features,
            dtype=weight.dtype,
            device=weight.device,
        )

    def encode_query(self, frames: Float[Tensor, "b 3 height width"]) -> Query:
        """Encode frames in [0, 1] to X^q, k^Q and v^Q (Section 3.1)."""
        pyramid, stem = self.query_encoder(frames)
        key = self.query_key(pyramid.stride16)
        skips = self.decoder.skip_features(pyramid.stride4, pyramid.stride8)
        return Query(
            key=key,
            value=self.query_value(pyramid.stride16),
            skips=skips,
            frames=frames,
            stem=stem,
            features=pyramid.stride16,
            shown=None if self.hint is None else shown_features(pyramid.stride16, key, skips[0]),
        )

    def encode_memory(
        self, query: Query, masks: Float[Tensor, "b m height width"], frame: int
    ) -> Template:
        """Encode the frame and its masks to a template (X^M, Section 3.1)."""
        return self._template(self._encoded(query, masks), query, masks, frame)

    def _encoded(
        self, query: Query, masks: Float[Tensor, "b m height width"]
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return key, value and update key of the frame with its masks."""
        features = self.memory_encoder(query.frames, query.stem, masks, query.features)
        key = query.key if self.memory_key is None else self.memory_key(features)
        plain = features.permute(0, 2, 3, 1)
        value = plain if self.memory_value is None else self.memory_value(features)
        return key, value, key[..., :0] if self.update_key is None else self.update_key(features)

    def _template(
        self, maps: tuple[Tensor, Tensor, Tensor], query: Query, masks: Tensor, frame: int
    ) -> Template:
        """Return the template of encoded maps."""
        sums = None if query.shown is None else frame_sums(query.shown, masks[:, 0])
        mass = evidence(masks[:, 0])
        return Template(*maps, mass, frame, query.key, self.matching, sums)

    def encode_memory_within(
        self,
        query: Query,
        masks: Float[Tensor, "b m height width"],
        frame: int,
        windows: Sequence[Window],
    ) -> Template:
        """Encode several objects of one frame as `encode_memory`, each in its window.

        Far from an object the frame is the same for all: no object here, the others there. That
        is encoded once; each entry is encoded by itself in its window alone.
        """
        grid = (query.key.shape[1], query.key.shape[2])
        common = query.first()
        everything = torch.stack([torch.zeros_like(masks[:1, 0]), masks[:1].sum(1)], 1)
        far = self._encoded(common, everything)
        key, value, update_key = (x.repeat(len(windows), 1, 1, 1) for x in far)
        maps = key, value, update_key
        for entry, window in enumerate(windows):
            own = masks[entry : entry + 1]
            part = self._encoded(common.within(window), window.cut(own, 1))
            kept = window.inside(grid)
            rows, columns = kept.at(STRIDE)
            there = kept.seen_from(window).at(STRIDE)
            for whole_map, part_map in zip(maps, part, strict=True):
                whole_map[entry, rows, columns] = part_map[0, *there]
        return self._template(maps, query, masks, frame)

    def memorize(
        self,
        state: MemoryState,
        query: Query,
        masks: Float[Tensor, "b m height width"],
        *,
        frame: int,
        policy: UpdatePolicy,
        pin: bool | Bool[Tensor, " b"] = False,
        reuse: bool = False,
        windows: Sequence[Window] | None = None,
    ) -> tuple[MemoryState, Choice]:
        """Write the frame with its masks, this object's and the others' union (Section 3.2).

        `windows`: see `encode_memory_within`; without them, or where the memory encoder must see
        all of a frame, every entry sees its whole frame.
        """
        if windows is None or not self.memory_encoder.local:
            template = self.encode_memory(query, masks, frame)
        else:
            template = self.encode_memory_within(query, masks, frame, windows)
        return self.write(state, template, policy, pin=pin, reuse=reuse)

    def recall(
        self,
        state: MemoryState,
        query: Query,
        hints: Float[Tensor, "b 2 h w"] | None = None,
    ) -> Float[Tensor, "b 1 h4 w4"]:
        """Read the memory and decode what was read (Section 3.3); `hints`: see `hints`."""
        return self.decode(read(state, query.key, matching=self.matching), query, hints)

    def hints(
        self, state: MemoryState, query: Query, video: Int[Tensor, " n"]
    ) -> Float[Tensor, "n 2 h w"] | None:
        """Compare each position with each object's summary, and with those of its rivals.

        Args:
            state: the memory, one entry per object.
            query: the frames, one per video.
            video: the video that each entry belongs to.

        Returns:
            Likeness of each entry and of the other objects of its video (`memory.summary`); None
            for networks without summaries.
        """
        if state.summary is None or query.shown is None:
            return None
        return beside_rivals(likeness(state.summary, _of_videos(query.shown, video)), video)

    def decode(
        self,
        found: Float[Tensor, "b h w cv"],
        query: Query,
        hints: Float[Tensor, "b 2 h w"] | None = None,
    ) -> Float[Tensor, "b 1 h4 w4"]:
        """Decode [what was read, v^Q] (Eq 5) to logits at stride 4."""
        y = torch.cat([found, query.value.to(found.dtype)], dim=-1).permute(0, 3, 1, 2)
        if self.hint is not None and hints is not None:
            y = y + self.hint(hints.to(query.value.dtype)).to(y.dtype)
        return self.decoder(y, query.skips)


def evidence(mask: Float[Tensor, "b height width"]) -> Float[Tensor, "b e"]:
    """Return object mass (mean of the soft mask) and confidence (mean of |2p - 1| over it)."""
    mask = mask.float()
    mass = mask.mean(dim=(1, 2))
    sure = (mask * (2 * mask - 1).abs()).mean(dim=(1, 2)) / mass.clamp(min=1e-6)
    return torch.stack([mass, sure], dim=1)
