"""Export a step as one graph: the memory is an input and an output of plain tensors.

The memory has a fixed size, so one graph with fixed shapes holds a whole step: read, decode,
aggregate, encode, choose a slot, write. The caller passes the memory that one step returns to the
next; `OnnxSession` does so with only onnxruntime and numpy.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, Integer, UInt8
from torch import Tensor, nn

from stremn.core.atomic_files import check_target, replacing
from stremn.errors import MissingExtraError, StremnError
from stremn.media.files import make_folder
from stremn.memory.choices import UpdatePolicy
from stremn.memory.policies import build_policy
from stremn.memory.reading import affinity, comparable_keys, comparable_query
from stremn.memory.state import NEVER, MemoryState
from stremn.memory.writing import with_room_to_pin, write
from stremn.moved import earlier_arguments, warn_of, with_current_facts
from stremn.networks.backbones import STRIDE
from stremn.networks.defaults import PAPER
from stremn.networks.model import Query, STReMN
from stremn.segmentation.aggregation import aggregate_fast, object_masks, upsampled

FRAME = ("frame", "given", "is_given", "time")
"""Inputs that are not the memory's."""

MEMORY = ("keys", "values", "update_keys", "evidence", "written_at", "pinned", "summary")
"""The memory's tensors, as inputs under these names and as outputs under `new_<name>`.

Networks without summaries have no "summary".
"""

EXPORTABLE = ("learned", "evidence", "oldest", "newest", "most-similar", "spread")
"""Rules without random numbers, growth or counts: those that a graph of fixed shapes can hold."""

META = "stremn"


class ExportedStep(nn.Module):
    """One step of a session: `recall` and `memorize` of all objects, as a pure function.

    With `is_given`, the frame is not segmented: `given` is memorized and pinned. So the same graph
    starts with an empty memory (see `empty_memory`) and follows the objects.
    """

    def __init__(self, model: STReMN, policy: UpdatePolicy, objects: int) -> None:
        super().__init__()
        self.model, self.policy = model, policy
        self.video: Tensor
        self.label: Tensor
        self.register_buffer("video", torch.zeros(objects, dtype=torch.int64))
        self.register_buffer("label", torch.arange(1, objects + 1))

    def forward(
        self,
        frame: Float[Tensor, "1 3 height width"],
        given: Float[Tensor, "1 c height width"],
        is_given: Bool[Tensor, ""],
        time: Int[Tensor, ""],
        keys: Float[Tensor, "o k h w ck"],
        values: Float[Tensor, "o k h w cv"],
        update_keys: Float[Tensor, "o k h w cu"],
        evidence: Float[Tensor, "o k e"],
        written_at: Int[Tensor, "o k"],
        pinned: Bool[Tensor, "o k"],
        summary: Float[Tensor, "o 2 c c1"] | None = None,
    ) -> tuple[Tensor, ...]:
        """Return probabilities "1 c height width" of background and objects, and the new memory."""
        count, slots = written_at.shape
        state = MemoryState(
            keys,
            values,
            update_keys,
            evidence,
            written_at,
            pinned,
            seen=torch.zeros(count, dtype=torch.int64),
            tally=torch.zeros(count, slots),
            filled=slots,  # which slots are empty is in written_at, for the graph to find out
            summary=summary,
        )
        query = self.model.encode_query(frame)
        each = query.take(self.video)
        hints = self.model.hints(state, query, self.video)
        logits = upsampled(self.model.decode(self._read(state, each), each, hints), frame)
        probabilities = torch.where(is_given, given, aggregate_fast(logits[None]))
        masks = object_masks(probabilities, self.video, self.label)
        template = self.model.encode_memory(each, masks, cast(int, time))
        state, pin = with_room_to_pin(state, time, is_given.expand(count))
        new, _ = write(state, template, self.policy, pin=pin)
        after = new.tensors()
        return probabilities, *(after[name] for name in MEMORY if name in after)

    def _read(self, state: MemoryState, query: Query) -> Float[Tensor, "o h w cv"]:
        """Read as `memory.read`, without its checks of values, which a graph cannot hold."""
        how = self.model.matching
        weights = affinity(
            comparable_query(state, query.key, how),
            comparable_keys(state.keys.flatten(1, 3), how),
            state.vacant,
            how.top,
        )
        return (weights @ state.values.flatten(1, 3)).unflatten(1, query.key.shape[1:3])


def empty_memory(
    model: STReMN, objects: int, memory_slots: int, frame_size: tuple[int, int]
) -> dict[str, Tensor]:
    """Return an empty memory by input name."""
    tensors = model.empty_state(objects, memory_slots, frame_size).tensors()
    return {name: tensors[name] for name in MEMORY if name in tensors}


@earlier_arguments(slots="memory_slots")
def export_step(
    model: STReMN,
    path: Path,
    *,
    height: int,
    width: int,
    objects: int = 1,
    memory_slots: int = PAPER.memory_slots,
    policy: str = PAPER.policy,
) -> Path:
    """Write the step for frames of `height` x `width` and a fixed number of objects and slots.

    A name ending in .onnx gives an ONNX graph, one ending in .pt2 a `torch.export` program. Both
    are in float32.

    Raises:
        StremnError: another ending; a size that is not a multiple of 16; no object or slot; a rule
            that cannot be exported; a file that cannot be written.
        MissingExtraError: onnx or onnxscript is missing.
    """
    _check(path, height, width, objects, memory_slots, policy)
    check_target(path)
    make_folder(path.parent)
    plain = copy.deepcopy(model).to("cpu", torch.float32).eval()
    plain = plain.to(memory_format=torch.contiguous_format)
    rule = plain.policies[policy] if policy in plain.policies else build_policy(policy)
    step = ExportedStep(plain, cast(UpdatePolicy, rule), objects).eval()
    memory = empty_memory(plain, objects, memory_slots, (height, width))
    example = (
        torch.rand(1, 3, height, width),
        torch.rand(1, objects + 1, height, width),
        torch.tensor(True),
        torch.tensor(0),
        *memory.values(),
    )
    facts = {
        "height": height,
        "width": width,
        "objects": objects,
        "memory_slots": memory_slots,
        "policy": policy,
    }
    if path.suffix == ".onnx":
        _write_onnx(step, example, tuple(memory), path, facts)
        return path
    with torch.no_grad():
        program = torch.export.export(step, example)
    with replacing(path) as temporary:
        torch.export.save(program, temporary, extra_files={META: json.dumps(facts)})
    return path


@earlier_arguments(slots="memory_slots")
def step_shapes(
    model: STReMN, *, height: int, width: int, objects: int, memory_slots: int
) -> tuple[dict[str, str], dict[str, str]]:
    """Return type and shape of an exported step's inputs and outputs, by name."""
    channels = f"float32 1 {objects + 1} {height} {width}"
    memory = {
        name: " ".join([str(x.dtype).removeprefix("torch."), *map(str, x.shape)])
        for name, x in empty_memory(model, objects, memory_slots, (height, width)).items()
    }
    inputs = {
        "frame": f"float32 1 3 {height} {width}",
        "given": channels,
        "is_given": "bool",
        "time": "int64",
        **memory,
    }
    return inputs, {"probabilities": channels, **{f"new_{name}": memory[name] for name in memory}}


def _check(
    path: Path, height: int, width: int, objects: int, memory_slots: int, policy: str
) -> None:
    if path.suffix not in (".onnx", ".pt2"):
        raise StremnError(f"Export to a file ending in .onnx or .pt2, got {path.name!r}.")
    if height % STRIDE or width % STRIDE or min(height, width) < STRIDE:
        near = [max(STRIDE, round(side / STRIDE) * STRIDE) for side in (width, height)]
        raise StremnError(
            f"An exported step takes frames whose sides are multiples of {STRIDE}, got "
            f"{width}x{height}. Use {near[0]}x{near[1]} and resize frames to it."
        )
    if objects < 1 or memory_slots < 2:
        raise StremnError(
            "An exported step needs at least one object and two slots, got "
            f"{objects} and {memory_slots}."
        )
    if policy not in EXPORTABLE:
        why = " It makes the memory grow." if policy == "append" else ""
        raise StremnError(
            f"The rule {policy!r} cannot be exported.{why} Choose one of: {', '.join(EXPORTABLE)}."
        )


def _write_onnx(
    step: ExportedStep,
    example: tuple[Tensor, ...],
    memory: tuple[str, ...],
    path: Path,
    facts: Mapping[str, Any],
) -> None:
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise MissingExtraError("onnxscript", "export") from error
    with torch.no_grad():
        program = torch.onnx.export(
            step,
            example,
            input_names=[*FRAME, *memory],
            output_names=["probabilities", *(f"new_{name}" for name in memory)],
            dynamo=True,
            verbose=False,
        )
    assert program is not None  # with dynamo=True
    proto = program.model_proto
    entry = proto.metadata_props.add()
    entry.key, entry.value = META, json.dumps(facts)
    with replacing(path) as temporary:
        onnx.save(proto, temporary)


class OnnxSession:
    """Follows objects with an exported step, using onnxruntime and numpy instead of PyTorch.

    session = OnnxSession(Path("step.onnx"))
    labels = session.step(frame, mask)
    labels = session.step(frame)
    """

    def __init__(self, path: Path) -> None:
        """Open an exported step.

        Raises:
            StremnError: no such file, or not one that `export_step` wrote.
            MissingExtraError: onnxruntime is missing.
        """
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtraError("onnxruntime", "export") from error
        if not path.is_file():
            raise StremnError(f"There is no file {path}.")
        try:
            self._runtime = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime's errors share no base class
            raise StremnError(f"{path} cannot be run as an ONNX graph: {error}") from error
        facts = self._runtime.get_modelmeta().custom_metadata_map.get(META)
        if facts is None:
            raise StremnError(f"{path} was not written by stremn export.")
        self.facts: dict[str, Any] = with_current_facts(json.loads(facts))
        shapes = {x.name: x.shape for x in self._runtime.get_inputs()}
        self._types = {x.name: x.type for x in self._runtime.get_inputs()}
        self._memory = {name: self._empty(name, shapes[name]) for name in MEMORY if name in shapes}
        self._time = 0
        self.probabilities = np.zeros((self.facts["objects"] + 1, *self._size), np.float32)
        """Probabilities "c height width" of background and objects in the latest frame."""

    @property
    def shares(self) -> np.ndarray:
        """Earlier name of `probabilities`."""
        warn_of("OnnxSession", "shares", "probabilities")
        return self.probabilities

    @property
    def _size(self) -> tuple[int, int]:
        return self.facts["height"], self.facts["width"]

    @property
    def memory_bytes(self) -> int:
        """Bytes of the memory; the same at every step."""
        return sum(x.nbytes for x in self._memory.values())

    def step(
        self,
        frame: UInt8[np.ndarray, "height width 3"],
        mask: Integer[np.ndarray, "height width"] | None = None,
    ) -> UInt8[np.ndarray, "height width"]:
        """Segment the next frame; with `mask` (ids 1..objects), take that as the truth.

        Raises:
            StremnError: a frame or mask of another size; a frame that is not uint8; no mask with
                the first frame; ids that the step was not exported for, or none.
        """
        size = self._size
        if frame.shape != (*size, 3) or (mask is not None and mask.shape != size):
            found = "" if mask is None else f" and a mask of shape {mask.shape}"
            raise StremnError(
                f"This step was exported for frames and masks of {size[1]}x{size[0]} pixels, got "
                f"a frame of shape {frame.shape}{found}. Resize them, or export for their size."
            )
        if frame.dtype != np.uint8:
            raise StremnError(
                f"A frame must hold RGB as uint8, 0 to 255, got {frame.dtype}. Multiply "
                "values in [0, 1] by 255 and round them."
            )
        if self._time == 0 and mask is None:
            raise StremnError("The first frame needs a mask: step(frame, mask).")
        count = self.facts["objects"]
        if mask is not None and (not mask.any() or mask.min() < 0 or mask.max() > count):
            raise StremnError(
                f"This step was exported for objects of the ids 1 to {count}; the mask holds "
                f"{', '.join(map(str, np.unique(mask)[:9]))}. If it holds 0 and 255, give mask > 0."
            )
        ids = np.arange(count + 1)[:, None, None]
        labels = np.zeros(size, np.uint8) if mask is None else mask
        probabilities, *new = self._runtime.run(
            None,
            {
                "frame": (frame.transpose(2, 0, 1)[None] / np.float32(255)),
                "given": (labels == ids)[None].astype(np.float32),
                "is_given": np.array(mask is not None),
                "time": np.array(self._time, np.int64),
                **self._memory,
            },
        )
        self._memory = dict(zip(self._memory, new, strict=True))
        self._time += 1
        self.probabilities = probabilities[0]
        return probabilities[0].argmax(0).astype(np.uint8)

    def _empty(self, name: str, shape: list[int]) -> np.ndarray:
        kinds = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(bool)": np.bool_}
        fill = NEVER if name == "written_at" else 0
        return np.full(shape, fill, kinds[self._types[name]])
