"""Sequences of video object segmentation data: frames, label maps, and which of them count.

A sequence is lazy: listing and pairing of files is checked when it is made, pixels are read when
asked for. Label maps are read as indices: palette colors are never interpreted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from stremn.data.readers.lossy import is_lossy
from stremn.errors import StremnError
from stremn.media.frames import Picture
from stremn.media.mask_codes import VOID
from stremn.media.masks import Labels
from stremn.media.pictures import opened_picture
from stremn.media.video import read_image

_ORIENTATION = 0x0112
"""EXIF tag; values above 4 mean that width and height change places."""

LabelReader = Callable[[Path], Labels]


@dataclass(frozen=True)
class ScoringRule:
    """Which annotated frames of an object count towards its score.

    Attributes:
        name: what score files call the rule.
        count_given: the frame in which the object is given counts.
        count_last: the last annotated frame of the sequence counts.
    """

    name: str
    count_given: bool
    count_last: bool


DAVIS_RULE = ScoringRule("DAVIS: annotated frames without the first and the last", False, False)
AFTER_GIVEN_RULE = ScoringRule("annotated frames after the object is given", False, True)
LVOS_RULE = ScoringRule("LVOS: the object's frame range, its first frame counts", True, False)


class VideoSequence(Protocol):
    """A video with label maps for some of its frames."""

    @property
    def name(self) -> str:
        """Name, unique in its set."""
        ...

    @property
    def objects(self) -> Mapping[int, int]:
        """Id of each object to segment -> index of the frame in which it is given."""
        ...

    @property
    def categories(self) -> Mapping[int, str]:
        """Id -> class name, where the data set has classes; else empty."""
        ...

    def __len__(self) -> int: ...

    def frame(self, index: int) -> Picture:
        """Return the RGB frame."""
        ...

    def label(self, index: int) -> Labels | None:
        """Return the label map, or None where the frame is not annotated."""
        ...

    def annotated(self, index: int) -> bool:
        """Return whether ``label(index)`` is a label map; reads no pixels."""
        ...

    def counts(self, index: int, object_id: int) -> bool:
        """Return whether the data set scores the object in this frame, beyond the set's general
        rule."""
        ...

    def submits(self, index: int) -> bool:
        """Return whether the mask of this frame belongs in the results."""
        ...

    def frame_name(self, index: int) -> str:
        """Name of the frame without suffix, as its mask is to be named."""
        ...

    def size(self) -> tuple[int, int]:
        """Return (width, height) in pixels."""
        ...

    def check(self) -> None:
        """Find errors before a run, at little cost.

        Raises:
            StremnError: files that do not fit together, or no object to follow.
        """
        ...


@dataclass(frozen=True)
class StoredSequence:
    """A video kept as an image file for each frame and for each label map.

    Attributes:
        name: name of the folder.
        frame_paths: image files in time order.
        label_paths: label map of each frame, or None where not annotated.
        read_label: reads a label map file.
        late_objects: objects may be given after the first annotated frame (the first label map
            that shows an id gives it); otherwise only the first annotated frame gives objects.
        given_at: id -> name of the frame in which it is given, where a meta file says so.
        categories: id -> class name, where the data set has classes.
        submitted: names of the frames whose masks the data set's server expects; None = all.
        scored_at: id -> names of the frames that count, where a meta file says so.
    """

    name: str
    frame_paths: tuple[Path, ...]
    label_paths: tuple[Path | None, ...]
    read_label: LabelReader
    late_objects: bool = False
    given_at: Mapping[int, str] | None = None
    categories: Mapping[int, str] = field(default_factory=dict)
    submitted: frozenset[str] | None = None
    scored_at: Mapping[int, frozenset[str]] | None = None

    def __len__(self) -> int:
        return len(self.frame_paths)

    def frame(self, index: int) -> Picture:
        """Return the RGB frame.

        Raises:
            StremnError: the file is damaged.
        """
        return read_image(self.frame_paths[index])

    def label(self, index: int) -> Labels | None:
        """Return the label map as indices, or None where the frame is not annotated.

        Raises:
            StremnError: the file is damaged or holds colors instead of indices.
        """
        path = self.label_paths[index]
        return None if path is None else self.read_label(path)

    def annotated(self, index: int) -> bool:
        """Return whether the frame has a label map."""
        return self.label_paths[index] is not None

    def counts(self, index: int, object_id: int) -> bool:
        """Return whether the frame is among those that a meta file says count for the object."""
        return self.scored_at is None or self.frame_name(index) in self.scored_at[object_id]

    def submits(self, index: int) -> bool:
        """Return whether the data set's server expects the mask of this frame."""
        return self.submitted is None or self.frame_name(index) in self.submitted

    def size(self) -> tuple[int, int]:
        """Return (width, height) of the first frame, from its header."""
        return image_size(self.frame_paths[0])

    def check(self) -> None:
        """Check the sizes of all files (headers only) and the masks that give objects.

        Raises:
            StremnError: naming the files or the object.
        """
        _check_sizes(self)
        _check_objects(self)

    def frame_name(self, index: int) -> str:
        """Return the file name of the frame without suffix."""
        return self.frame_paths[index].stem

    @cached_property
    def objects(self) -> dict[int, int]:
        """Id -> index of the frame that gives it. Reads label maps at the first use."""
        if self.given_at is not None:
            index_of = {path.stem: i for i, path in enumerate(self.frame_paths)}
            return {i: index_of[name] for i, name in self.given_at.items()}
        found: dict[int, int] = {}
        for index, path in enumerate(self.label_paths):
            if path is None:
                continue
            for i in label_ids(self.read_label(path)):
                found.setdefault(i, index)
            if not self.late_objects:
                break
        return found


@dataclass(frozen=True)
class SequenceSet:
    """The sequences of one split of a data set, with the rule that scores them.

    Attributes:
        name: data set.
        split: split of the data set.
        sequences: in the order of the split file, or by name.
        rule: which frames count.
        frames: ``"every frame"`` or ``"annotated frames"``: what a model is shown.
        seen_classes: classes of the training split, where scores are grouped by them.
        unseen_videos: videos of unseen classes, where scores are grouped by video.
        submission: what a server expects ("davis", "youtube-vos", ...), or "" if there is none.
    """

    name: str
    split: str
    sequences: tuple[VideoSequence, ...]
    rule: ScoringRule
    frames: str = "every frame"
    seen_classes: frozenset[str] | None = None
    unseen_videos: frozenset[str] | None = None
    submission: str = ""

    def __len__(self) -> int:
        return len(self.sequences)

    def __iter__(self) -> Iterator[VideoSequence]:
        return iter(self.sequences)

    def __getitem__(self, name: str) -> VideoSequence:
        for sequence in self.sequences:
            if sequence.name == name:
                return sequence
        raise StremnError(
            f"There is no sequence {name!r} in {self.name} {self.split}. "
            f"It has {some([s.name for s in self.sequences])}."
        )

    def only(self, names: Sequence[str]) -> SequenceSet:
        """Return the named sequences, in the order given."""
        return replace(self, sequences=tuple(self[name] for name in names))

    def group(self, sequence: VideoSequence, object_id: int) -> str | None:
        """Return "seen" or "unseen" by the object's class in the training split; None if
        unknown."""
        if self.unseen_videos is not None:
            return "unseen" if sequence.name in self.unseen_videos else "seen"
        category = sequence.categories.get(object_id)
        if self.seen_classes is None or category is None:
            return None
        return "seen" if category in self.seen_classes else "unseen"


# Pixels ---------------------------------------------------------------------------------------


def read_indices(path: Path) -> Labels:
    """Read a label map file as indices: palette index, or gray value (8 or 16 bits).

    Raises:
        StremnError: the file is damaged, was compressed with loss, or holds colors.
    """
    try:
        with opened_picture(path) as image:
            if is_lossy(image, path):
                raise StremnError(
                    f"{path} is a lossy file ({image.format}), whose values are no longer the ids "
                    "that were drawn. A label map must be a palette or gray PNG; "
                    "`stremn check-mask` converts one."
                )
            if image.mode not in ("P", "L", "1", "I;16", "I"):
                raise StremnError(
                    f"{path} holds colors (mode {image.mode}), not ids. A label map must be a "
                    "palette or gray PNG; `stremn check-mask` converts one."
                )
            labels = np.asarray(image)
    except (OSError, SyntaxError) as error:
        raise StremnError(f"{path} cannot be read as a label map ({error}).") from error
    wide = labels.dtype.itemsize > 1 and int(labels.max()) > 255
    return labels.astype(np.uint16 if wide else np.uint8)


def read_binary(path: Path) -> Labels:
    """Read a label map file of one object, stored as 0 / 1 or 0 / 255 (DAVIS 2016)."""
    return (read_indices(path) > 0).astype(np.uint8)


def label_ids(labels: Labels) -> list[int]:
    """Return ids of a label map in increasing order, without background and void."""
    if labels.dtype == np.uint8:
        present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist()
        return [i for i in present if i not in (0, VOID)]
    return [int(i) for i in np.unique(labels) if i != 0]


def image_size(path: Path) -> tuple[int, int]:
    """Read (width, height) in pixels of the upright image from the file's header.

    Raises:
        StremnError: the file is damaged or no image.
    """
    try:
        with opened_picture(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) > 4
            return (height, width) if turned else (width, height)
    except (OSError, SyntaxError) as error:
        raise StremnError(f"{path} cannot be read as an image ({error}).") from error


# Checks ---------------------------------------------------------------------------------------


def _check_sizes(sequence: StoredSequence) -> None:
    size = image_size(sequence.frame_paths[0])
    files = (*sequence.frame_paths, *(p for p in sequence.label_paths if p is not None))
    wrong = [path for path in files if image_size(path) != size]
    if wrong:
        found = "x".join(map(str, image_size(wrong[0])))
        raise StremnError(
            f"{sequence.name}: frames are {size[0]}x{size[1]} but {len(wrong)} files are not: "
            f"{some([f'{p.parent.name}/{p.name}' for p in wrong])} (the first is {found}). "
            "Frames and masks of a sequence must have one size."
        )


def _check_objects(sequence: StoredSequence) -> None:
    if not sequence.objects:
        raise StremnError(
            f"{sequence.name}: the first mask shows no object, so there is nothing to follow. "
            "Leave the sequence out of the split or give it a mask."
        )
    for i, index in sequence.objects.items():
        labels = sequence.label(index)
        if labels is None or not (labels == i).any():
            raise StremnError(
                f"{sequence.name}: object {i} should be given in frame "
                f"{sequence.frame_name(index)}, but the mask of that frame does not show it."
            )


def some(names: Sequence[str]) -> str:
    """Return up to three of the names, and how many more there are, for messages."""
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest
