"""Make transformers' models read slots where they read their past frames.

Everything else of a model is transformers' own: encoders, memory attention, prompt encoder, mask
decoder. A frame is run in a session of transformers that is made for it and thrown away after.
"""

from __future__ import annotations

import copy
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from stremn.networks.model import evidence
from stremn.sam.slots import Encoded, ObjectSlots, positions

_OFFSET_OF_GIVEN = 0


class ReadsSlots:
    """Mixin for a transformers model that reads the session's slots."""

    def _gather_memory_frame_outputs(
        self, inference_session: Any, obj_idx: int, frame_idx: int, *_: Any, **__: Any
    ) -> list[tuple[int, dict[str, Tensor]]]:
        """Return (frames ago, template) of all slots: the given ones first, as transformers."""
        past: Past = inference_session.past
        memory = past.of(obj_idx)
        held = [
            (t, {"maskmem_features": past.shaped(x), "maskmem_pos_enc": past.places})
            for t, x in memory.held()
        ]
        given = {t: out for t, out in held if t in memory.given}
        chosen, others = self._select_closest_cond_frames(  # type: ignore[attr-defined]
            frame_idx,
            given,
            max_cond_frame_num=self.config.max_cond_frame_num,  # type: ignore[attr-defined]
        )
        furthest: int = self.num_maskmem - 1  # type: ignore[attr-defined]
        tracked = [(t, out) for t, out in held if t not in memory.given]
        near = {t: out for t, out in others.items() if 0 < frame_idx - t <= furthest}
        ago = positions([t for t, _ in tracked], frame_idx, furthest)
        seen = (
            [(place, out) for place, (_, out) in zip(ago, tracked, strict=True)] if furthest else []
        )
        used = {place for place, _ in seen}
        seen += [(frame_idx - t, out) for t, out in near.items() if frame_idx - t not in used]
        seen.sort(key=lambda item: -item[0])
        return [(_OFFSET_OF_GIVEN, out) for out in chosen.values()] + seen

    def _get_object_pointers(
        self, inference_session: Any, obj_idx: int, frame_idx: int, *_: Any, **__: Any
    ) -> tuple[list[int], list[Tensor], int]:
        """Return (frames ago, pointer) of given frames and of the latest segmented ones."""
        memory = inference_session.past.of(obj_idx)
        most: int = self.config.max_object_pointers_in_encoder  # type: ignore[attr-defined]
        latest = sorted((t for t in memory.pointers if 0 < frame_idx - t < most), reverse=True)
        found = [(frame_idx - t, x) for t, x in memory.given.items() if t <= frame_idx]
        found += [(frame_idx - t, memory.pointers[t]) for t in latest]
        return [ago for ago, _ in found], [x for _, x in found], most


def reading_slots(model: nn.Module) -> nn.Module:
    """Return a model that shares all weights with `model` and reads slots; `model` stays as is."""
    ours = copy.copy(model)
    kind = type(model)
    ours.__class__ = type(f"{kind.__name__}OnSlots", (ReadsSlots, kind), {"__module__": __name__})
    return ours


@dataclass(frozen=True)
class Past:
    """The objects' memories that a frame is read with, in the session's order.

    shape: of one template's features, as the model keeps them; places: their position codes, the
    same for every frame. None before the first frame.
    """

    memories: tuple[ObjectSlots | None, ...]
    shape: tuple[int, ...] | None = None
    places: Tensor | None = None

    def of(self, place: int) -> ObjectSlots:
        """Return the memory of an object that has one."""
        memory = self.memories[place]
        assert memory is not None  # without, an object has a prompt, and nothing past is read
        return memory

    def shaped(self, features: Float[Tensor, "tokens c"]) -> Tensor:
        """Return features as the model keeps them."""
        assert self.shape is not None  # there was a frame
        return features.reshape(self.shape)


Prompts = Mapping[int, Mapping[str, Tensor]]
"""By object: {"mask": ...} at the model's size, or {"point_coords": ..., "point_labels": ...}."""


@dataclass(frozen=True)
class Seen:
    """Result of a model for one frame.

    logits: one layer per object, at a quarter of the model's size.
    encoded: what the memory is to keep, object by object.
    shape, places: see `Past`.
    features: of the frame, for another look at it.
    """

    logits: Float[Tensor, "o h w"]
    encoded: tuple[Encoded, ...]
    shape: tuple[int, ...]
    places: Tensor
    features: Any


def look(
    model: Any,
    frame: int,
    ids: tuple[int, ...],
    past: Past,
    prompts: Prompts,
    *,
    pixels: Float[Tensor, "1 3 h w"] | None = None,
    features: Any = None,
) -> Seen:
    """Run a model on a frame (see `run_frame`), in two runs where one is not possible.

    transformers' EdgeTAM fails on a frame where some objects have a prompt and others do not.
    """
    apart = tuple(i for i in ids if i in prompts)
    if model.config.model_type != "edgetam_video" or len(apart) in (0, len(ids)):
        return run_frame(model, frame, ids, past, prompts, pixels=pixels, features=features)
    found: dict[int, tuple[Tensor, Encoded]] = {}
    for group in (tuple(i for i in ids if i not in prompts), apart):
        own = tuple(m for i, m in zip(ids, past.memories, strict=True) if i in group)
        seen = run_frame(
            model,
            frame,
            group,
            replace(past, memories=own),
            {i: x for i, x in prompts.items() if i in group},
            pixels=pixels,
            features=features,
        )
        found |= dict(zip(group, zip(seen.logits, seen.encoded, strict=True), strict=True))
        pixels, features = None, seen.features
    layers = torch.stack([found[i][0] for i in ids])
    return replace(seen, logits=layers, encoded=tuple(found[i][1] for i in ids))


def run_frame(
    model: Any,
    frame: int,
    ids: tuple[int, ...],
    past: Past,
    prompts: Prompts,
    *,
    pixels: Float[Tensor, "1 3 h w"] | None = None,
    features: Any = None,
) -> Seen:
    """Run a model from `reading_slots` on a frame, given as pixels or as features of before.

    Args:
        model: from `reading_slots`.
        frame: its index.
        ids: the objects, in the order of `past.memories`.
        past: what is known of them; objects without memory need a prompt.
        prompts: where some objects are.
        pixels: the frame at the model's size, normalized.
        features: `Seen.features` of the same frame.
    """
    like = pixels if pixels is not None else past.places
    assert like is not None  # a frame, or one of before
    session = session_class(model)(
        inference_device=like.device,
        inference_state_device=like.device,
        video_storage_device=like.device,
        dtype=like.dtype,
    )
    session.past = past
    for name in ids:
        place = session.obj_id_to_idx(name)
        for kind, add in _adders(session).items():
            if name in prompts and kind in prompts[name]:
                add(place, frame, dict(prompts[name]))
    session.obj_with_new_inputs = [name for name in ids if name in prompts]
    if features is not None:
        session.cache.cache_vision_features(frame, features)
    with torch.inference_mode():
        answer = model(inference_session=session, frame_idx=frame, frame=pixels)
    outputs = []
    for place in range(len(ids)):
        by_kind = session.output_dict_per_obj[place]
        outputs.append((by_kind["cond_frame_outputs"] | by_kind["non_cond_frame_outputs"])[frame])
    logits = answer.pred_masks.flatten(0, 1).float()
    return Seen(
        logits,
        tuple(_encoded(out, layer) for out, layer in zip(outputs, logits, strict=True)),
        tuple(outputs[0]["maskmem_features"].shape),
        outputs[0]["maskmem_pos_enc"],
        session.cache.get_vision_features(frame),
    )


def _adders(session: Any) -> dict[str, Callable[[int, int, dict[str, Tensor]], None]]:
    return {
        "mask": lambda place, frame, prompt: session.add_mask_inputs(place, frame, prompt["mask"]),
        "point_coords": session.add_point_inputs,
    }


def _encoded(output: Mapping[str, Tensor], logits: Float[Tensor, "h w"]) -> Encoded:
    mass, confidence = evidence(logits.sigmoid()[None])[0].tolist()
    pointer = output["object_pointer"].reshape(1, -1)
    return Encoded(output["maskmem_features"], pointer, mass, confidence)


def session_class(model: nn.Module) -> Any:
    """Return transformers' session class of a model or of one from `reading_slots`."""
    kind = next(k for k in type(model).__mro__ if k.__module__.startswith("transformers."))
    return getattr(sys.modules[kind.__module__], kind.__name__.replace("Model", "InferenceSession"))
