"""Readers of video object segmentation data in their official layouts.

Every reader returns a :class:`SequenceSet`. A sequence is lazy: listing and pairing of files is
checked when it is made, pixels are read when asked for. Label maps are read as indices: palette
colors are never interpreted.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from stremn.errors import StremnError
from stremn.media.mask_codes import VOID
from stremn.media.masks import Labels
from stremn.media.video import IMAGE_SUFFIXES, natural_order, read_image

_ORIENTATION = 0x0112
"""EXIF tag; values above 4 mean that width and height change places."""

LVOS_STEP = 5
"""LVOS scores every fifth frame of an object's range."""

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

    def frame(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """RGB frame."""
        ...

    def label(self, index: int) -> Labels | None:
        """Label map, or None where the frame is not annotated."""
        ...

    def annotated(self, index: int) -> bool:
        """Whether ``label(index)`` is a label map; reads no pixels."""
        ...

    def counts(self, index: int, object_id: int) -> bool:
        """Whether the data set scores the object in this frame, beyond the set's general rule."""
        ...

    def submits(self, index: int) -> bool:
        """Whether the mask of this frame belongs into the results."""
        ...

    def frame_name(self, index: int) -> str:
        """Name of the frame without suffix, as its mask is to be named."""
        ...

    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        ...

    def check(self) -> None:
        """Find what would fail midway, at little cost.

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

    def frame(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """RGB frame.

        Raises:
            StremnError: the file is damaged.
        """
        return read_image(self.frame_paths[index])

    def label(self, index: int) -> Labels | None:
        """Label map as indices, or None where the frame is not annotated.

        Raises:
            StremnError: the file is damaged or holds colors instead of indices.
        """
        path = self.label_paths[index]
        return None if path is None else self.read_label(path)

    def annotated(self, index: int) -> bool:
        """Whether the frame has a label map."""
        return self.label_paths[index] is not None

    def counts(self, index: int, object_id: int) -> bool:
        """Whether the frame is among those that a meta file says count for the object."""
        return self.scored_at is None or self.frame_name(index) in self.scored_at[object_id]

    def submits(self, index: int) -> bool:
        """Whether the data set's server expects the mask of this frame."""
        return self.submitted is None or self.frame_name(index) in self.submitted

    def size(self) -> tuple[int, int]:
        """(width, height) of the first frame, from its header."""
        return image_size(self.frame_paths[0])

    def check(self) -> None:
        """Check the sizes of all files (headers only) and the masks that give objects.

        Raises:
            StremnError: naming the files or the object.
        """
        _check_sizes(self)
        _check_objects(self)

    def frame_name(self, index: int) -> str:
        """File name of the frame without suffix."""
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
            f"It has {_some([s.name for s in self.sequences])}."
        )

    def only(self, names: Sequence[str]) -> SequenceSet:
        """The named sequences alone, in the order given."""
        return replace(self, sequences=tuple(self[name] for name in names))

    def group(self, sequence: VideoSequence, object_id: int) -> str | None:
        """ "seen" or "unseen" (is the object's class in the training split), None if unknown."""
        if self.unseen_videos is not None:
            return "unseen" if sequence.name in self.unseen_videos else "seen"
        category = sequence.categories.get(object_id)
        if self.seen_classes is None or category is None:
            return None
        return "seen" if category in self.seen_classes else "unseen"


# Pixels ---------------------------------------------------------------------------------------


def read_indices(path: Path) -> Labels:
    """A label map file as indices: palette index, or gray value (8 or 16 bits).

    Raises:
        StremnError: the file is damaged, or holds colors.
    """
    try:
        with Image.open(path) as image:
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
    """A label map file of one object, stored as 0 / 1 or 0 / 255 (DAVIS 2016)."""
    return (read_indices(path) > 0).astype(np.uint8)


def label_ids(labels: Labels) -> list[int]:
    """Ids of a label map in increasing order, without background and void."""
    if labels.dtype == np.uint8:
        present = np.flatnonzero(np.bincount(labels.ravel(), minlength=256)).tolist()
        return [i for i in present if i not in (0, VOID)]
    return [int(i) for i in np.unique(labels) if i != 0]


# Readers --------------------------------------------------------------------------------------

_DAVIS_TREE = """\
{root}/
  JPEGImages/{resolution}/<sequence>/00000.jpg ...
  Annotations/{resolution}/<sequence>/00000.png ...
  ImageSets/{year}/{split}.txt"""

_YOUTUBE_TREE = """\
{root}/
  {split}/JPEGImages/<video>/00000.jpg 00005.jpg ...
  {split}/Annotations/<video>/00000.png ...
  {split}/meta.json
  {split}_all_frames/JPEGImages/<video>/00000.jpg 00001.jpg ...   (only for all frames)"""

_SPLIT_TREE = """\
{root}/
  {split}/JPEGImages/<video>/*.jpg
  {split}/Annotations/<video>/*.png"""

_PLAIN_TREE = """\
{root}/
  JPEGImages/<sequence>/*.jpg
  Annotations/<sequence>/*.png
or
{root}/
  <sequence>/JPEGImages/*.jpg
  <sequence>/Annotations/*.png"""


def read_davis(
    root: Path, split: str = "val", year: int = 2017, resolution: str = "480p"
) -> SequenceSet:
    """DAVIS 2016 or 2017. Objects are those of the first frame; 2016 has one object.

    Splits whose name starts with "test" are annotated in the first frame only.

    Args:
        root: folder that holds ``JPEGImages``, ``Annotations`` and ``ImageSets``.
        split: name of a file in ``ImageSets/<year>``, such as "train", "val" or "test-dev".
        year: 2016 (one object: every non-zero pixel) or 2017 (ids).
        resolution: "480p" or "Full-Resolution".

    Raises:
        StremnError: wrong layout, a sequence of the split that is not there, missing or extra
            frames or masks.
    """
    tree = _DAVIS_TREE.format(root=root, resolution=resolution, year=year, split=split)
    frames = _folder(root / "JPEGImages" / resolution, tree)
    labels = _folder(root / "Annotations" / resolution, tree)
    names = _davis_split(root / "ImageSets", year, split, tree)
    _check_present(names, frames, f"split {split!r} of {root}")
    reader = read_binary if year == 2016 else read_indices
    hidden = split.startswith("test")
    sequences = [_pair(name, frames / name, labels / name, reader) for name in names]
    for sequence in sequences:
        _check_numbering(sequence)
        _check_given(sequence) if hidden else _check_every_label(sequence)
    return SequenceSet(
        f"DAVIS {year}", split, tuple(sequences), DAVIS_RULE, submission="davis" if hidden else ""
    )


def read_youtube_vos(
    root: Path, split: str = "valid", year: int = 2019, all_frames: bool = False
) -> SequenceSet:
    """YouTube-VOS 2018 or 2019. Objects may be given in later frames, as ``meta.json`` says.

    The split into seen and unseen classes needs ``train/meta.json`` beside the split.

    Args:
        root: folder that holds ``train``, ``valid``, ``test``.
        split: "train", "valid" or "test".
        year: 2018 or 2019; the layout is the same.
        all_frames: show the model every frame of ``<split>_all_frames``; masks of the 6-fps frames
            are still the ones that count. Otherwise only the 6-fps frames are shown.

    Raises:
        StremnError: wrong layout, or videos, frames or masks that do not fit together.
    """
    tree = _YOUTUBE_TREE.format(root=root, split=split)
    sparse = _folder(root / split / "JPEGImages", tree)
    labels = _folder(root / split / "Annotations", tree)
    shown = _folder(root / f"{split}_all_frames" / "JPEGImages", tree) if all_frames else sparse
    videos = _read_meta(root / split / "meta.json", tree)
    names = sorted(videos)
    for folder in (sparse, labels, shown):
        _check_present(names, folder, f"{root / split / 'meta.json'}")
    sequences = [
        _from_meta(name, shown / name, labels / name, sparse / name, videos[name]) for name in names
    ]
    return SequenceSet(
        f"YouTube-VOS {year}",
        split,
        tuple(sequences),
        AFTER_GIVEN_RULE,
        frames="every frame" if all_frames else "6-fps frames",
        seen_classes=_classes(root / "train" / "meta.json"),
        submission="youtube-vos",
    )


def read_lvos(root: Path, split: str = "valid") -> SequenceSet:
    """LVOS v1 or v2: long videos; objects are given in later frames too.

    ``meta.json`` (or ``<split>_meta.json``) gives each object's frame range, of which every fifth
    frame counts, the end excluded. Without it every annotated frame counts from the one that
    gives the object. ``unseen_videos.txt`` beside it groups the scores.

    Args:
        root: folder that holds ``train``, ``valid``, ``test``, or one of these folders.
        split: "train", "valid" or "test".

    Raises:
        StremnError: wrong layout, or frames and masks that do not fit together.
    """
    base = _split_folder(root, split)
    unseen = base / "unseen_videos.txt"
    groups = frozenset(_lines(unseen, "")) if unseen.is_file() else None
    meta = next(
        (base / n for n in ("meta.json", f"{split}_meta.json") if (base / n).is_file()), None
    )
    videos = {} if meta is None else _read_meta(meta, "")
    sequences = tuple(_with_ranges(s, videos.get(s.name)) for s in _read_split(root, split))
    return SequenceSet("LVOS", split, sequences, LVOS_RULE, unseen_videos=groups, submission="lvos")


def _with_ranges(sequence: StoredSequence, meta: Mapping[str, Any] | None) -> StoredSequence:
    """Give an LVOS sequence the frame ranges of its meta entry, if that has them."""
    if meta is None or not all("frame_range" in entry for entry in meta["objects"].values()):
        return sequence
    width = len(sequence.frame_name(0))
    ranges = {int(i): entry["frame_range"] for i, entry in meta["objects"].items()}
    scored_at = {
        i: frozenset(f"{n:0{width}d}" for n in range(int(r["start"]), int(r["end"]), LVOS_STEP))
        for i, r in ranges.items()
    }
    given_at = {i: f"{int(r['start']):0{width}d}" for i, r in ranges.items()}
    missing = sorted(set(given_at.values()) - {path.stem for path in sequence.frame_paths})
    _refuse_names(missing, f"{sequence.name}: {{count}} frames that give objects are missing")
    return replace(sequence, given_at=given_at, scored_at=scored_at)


def read_mose(root: Path, split: str = "valid") -> SequenceSet:
    """MOSE: crowded scenes; ``valid`` is annotated where objects are given only.

    Args:
        root: folder that holds ``train`` and ``valid``, or one of these folders.
        split: "train" or "valid".

    Raises:
        StremnError: wrong layout, or frames and masks that do not fit together.
    """
    return SequenceSet(
        "MOSE", split, tuple(_read_split(root, split)), DAVIS_RULE, submission="mose"
    )


def read_long_time_video(root: Path) -> SequenceSet:
    """Long-Time Video: three videos of thousands of frames, about twenty of them annotated.

    Args:
        root: folder that holds ``JPEGImages`` and ``Annotations``.

    Raises:
        StremnError: wrong layout, or frames and masks that do not fit together.
    """
    return replace(read_folders(root), name="Long-Time Video", frames="every frame, scores sparse")


def read_folders(
    root: Path,
    split_file: Path | None = None,
    late_objects: bool = False,
    rule: ScoringRule = DAVIS_RULE,
) -> SequenceSet:
    """Plain folders: ``JPEGImages/<sequence>`` with ``Annotations/<sequence>``, or the same inside
    a folder for each sequence.

    Any frame names, sorted naturally ("frame9" before "frame10"). A label map has its frame's name.

    Args:
        root: the folder.
        split_file: text file with a sequence name a line; all sequences by default.
        late_objects: later label maps may give new objects; else only the first one does.
        rule: which annotated frames count.

    Raises:
        StremnError: wrong layout, a sequence of the split that is not there, a label map without
            a frame.
    """
    tree = _PLAIN_TREE.format(root=root)
    pairs = _plain_pairs(root, tree)
    names = sorted(pairs, key=natural_order)
    if split_file is not None:
        names = _lines(split_file, tree)
        _check_names(names, pairs, f"split file {split_file}")
    sequences = [_pair(name, *pairs[name], read_indices, late_objects) for name in names]
    for sequence in sequences:
        _check_given(sequence)
    split = "all" if split_file is None else split_file.stem
    return SequenceSet(root.name, split, tuple(sequences), rule)


def _read_split(root: Path, split: str) -> list[StoredSequence]:
    tree = _SPLIT_TREE.format(root=root, split=split)
    base = _split_folder(root, split)
    frames, labels = _folder(base / "JPEGImages", tree), _folder(base / "Annotations", tree)
    names = _subfolders(frames, tree)
    _check_present(names, labels, f"{frames}")
    sequences = [_pair(n, frames / n, labels / n, read_indices, late_objects=True) for n in names]
    for sequence in sequences:
        _check_given(sequence)
    return sequences


def _split_folder(root: Path, split: str) -> Path:
    return root / split if (root / split).is_dir() else root


def _from_meta(
    name: str, frames: Path, labels: Path, sparse: Path, meta: Mapping[str, Any]
) -> StoredSequence:
    paired = _pair(name, frames, labels, read_indices, late_objects=True)
    expected = frozenset(path.stem for path in _files(sparse))
    _refuse_names(
        sorted(expected - {p.stem for p in paired.frame_paths}, key=natural_order),
        f"{name}: {frames} lacks {{count}} frames that {sparse} has",
    )
    objects = {int(i): entry for i, entry in meta["objects"].items()}
    listed = all(entry.get("frames") for entry in objects.values())
    firsts = {i: _first_frame(e, paired, i) for i, e in objects.items()} if listed else None
    return StoredSequence(
        name,
        paired.frame_paths,
        paired.label_paths,
        read_indices,
        late_objects=True,
        given_at=firsts,
        categories={i: str(e["category"]) for i, e in objects.items() if "category" in e},
        submitted=expected,
    )


def _first_frame(entry: Mapping[str, Any], sequence: StoredSequence, i: int) -> str:
    first = str(min(entry["frames"], key=natural_order))
    labeled = {p.stem for p in sequence.label_paths if p is not None}
    if first not in labeled:
        raise StremnError(
            f"{sequence.name}: object {i} is given in frame {first}, but there is no mask "
            f"{first}.png in its Annotations folder. The copy is incomplete; extract it again."
        )
    return first


def _pair(
    name: str, frames: Path, labels: Path, reader: LabelReader, late_objects: bool = False
) -> StoredSequence:
    frame_paths = _files(frames)
    if not frame_paths:
        raise StremnError(f"{name}: {frames} holds no frames (images such as jpg or png).")
    label_of = {path.stem: path for path in _files(labels) if path.suffix.lower() == ".png"}
    extra = sorted(label_of.keys() - {path.stem for path in frame_paths}, key=natural_order)
    _refuse_names(extra, f"{name}: {{count}} masks in {labels} have no frame")
    return StoredSequence(
        name,
        tuple(frame_paths),
        tuple(label_of.get(path.stem) for path in frame_paths),
        reader,
        late_objects,
    )


# Checks ---------------------------------------------------------------------------------------


def _check_sizes(sequence: StoredSequence) -> None:
    size = image_size(sequence.frame_paths[0])
    files = (*sequence.frame_paths, *(p for p in sequence.label_paths if p is not None))
    wrong = [path for path in files if image_size(path) != size]
    if wrong:
        found = "x".join(map(str, image_size(wrong[0])))
        raise StremnError(
            f"{sequence.name}: frames are {size[0]}x{size[1]} but {len(wrong)} files are not: "
            f"{_some([f'{p.parent.name}/{p.name}' for p in wrong])} (the first is {found}). "
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


def _check_numbering(sequence: StoredSequence) -> None:
    names = [path.stem for path in sequence.frame_paths]
    if not all(name.isdecimal() for name in names):
        return
    width, present = len(names[0]), {int(name) for name in names}
    gaps = [f"{i:0{width}d}" for i in range(min(present), max(present)) if i not in present]
    _refuse_names(gaps, f"{sequence.name}: {{count}} frames are missing")


def _check_every_label(sequence: StoredSequence) -> None:
    pairs = zip(sequence.frame_paths, sequence.label_paths, strict=True)
    missing = [frame.stem for frame, label in pairs if label is None]
    _refuse_names(missing, f"{sequence.name}: {{count}} frames have no mask")


def _check_given(sequence: StoredSequence) -> None:
    if all(path is None for path in sequence.label_paths):
        raise StremnError(
            f"{sequence.name}: there is no mask at all, so no object is given. At least the "
            "first frame needs one, named like the frame."
        )


def _check_present(names: Sequence[str], folder: Path, source: str) -> None:
    present = {path.name for path in folder.iterdir() if path.is_dir()}
    _check_names(names, present, source, f" in {folder}")


def _check_names(
    names: Sequence[str], present: Iterable[str], source: str, where: str = ""
) -> None:
    known = set(present)
    absent = [name for name in names if name not in known]
    if absent:
        raise StremnError(
            f"{len(absent)} sequences named by {source} are not there{where}: {_some(absent)}."
        )


def _refuse_names(names: Sequence[str], problem: str) -> None:
    if names:
        raise StremnError(f"{problem.format(count=len(names))}: {_some(names)}.")


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + rest


# Files ----------------------------------------------------------------------------------------


def _folder(path: Path, tree: str) -> Path:
    if not path.is_dir():
        raise StremnError(f"There is no folder {path}. Expected this layout:\n{tree}")
    return path


def _subfolders(path: Path, tree: str) -> list[str]:
    names = sorted((p.name for p in path.iterdir() if p.is_dir()), key=natural_order)
    if not names:
        raise StremnError(f"{path} holds no sequence folders. Expected this layout:\n{tree}")
    return names


def _files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    files = [p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES]
    return sorted(files, key=lambda path: natural_order(path.stem))


def _plain_pairs(root: Path, tree: str) -> dict[str, tuple[Path, Path]]:
    """Sequence name -> folders of its frames and its label maps."""
    if not root.is_dir():
        raise StremnError(f"There is no folder {root}. Expected this layout:\n{tree}")
    if (root / "JPEGImages").is_dir():
        frames, labels = root / "JPEGImages", _folder(root / "Annotations", tree)
        names = _subfolders(frames, tree)
        _check_present(names, labels, f"{frames}")
        return {name: (frames / name, labels / name) for name in names}
    inner = [path for path in root.iterdir() if (path / "JPEGImages").is_dir()]
    if not inner:
        raise StremnError(
            f"{root} has neither a folder JPEGImages nor sequence folders that hold one. "
            f"Expected this layout:\n{tree}"
        )
    return {p.name: (p / "JPEGImages", _folder(p / "Annotations", tree)) for p in inner}


def _davis_split(sets: Path, year: int, split: str, tree: str) -> list[str]:
    """Names of a split file; the 2016 release lists "/JPEGImages/480p/<name>/00000.jpg ..."."""
    path = sets / str(year) / f"{split}.txt"
    if year == 2016 and not path.is_file():
        path = sets / "480p" / f"{split}.txt"
    lines = _lines(path, tree)
    names = [line.split()[0].split("/")[-2] if "/" in line else line for line in lines]
    return list(dict.fromkeys(names))


def _lines(path: Path, tree: str) -> list[str]:
    if not path.is_file():
        raise StremnError(f"There is no split file {path}. Expected this layout:\n{tree}")
    lines = [line.strip() for line in path.read_text().splitlines()]
    names = [line for line in lines if line]
    if not names:
        raise StremnError(f"The split file {path} is empty; it should name a sequence a line.")
    return names


def _read_meta(path: Path, tree: str) -> dict[str, Any]:
    if not path.is_file():
        raise StremnError(f"There is no file {path}. Expected this layout:\n{tree}")
    try:
        return json.loads(path.read_text())["videos"]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise StremnError(
            f'{path} is not a YouTube-VOS meta file: it should be JSON with a table "videos".'
        ) from error


def _classes(meta: Path) -> frozenset[str] | None:
    if not meta.is_file():
        return None
    videos = _read_meta(meta, "")
    objects = (entry for video in videos.values() for entry in video["objects"].values())
    return frozenset(str(entry["category"]) for entry in objects if "category" in entry)


def image_size(path: Path) -> tuple[int, int]:
    """(width, height) in pixels of the upright image, from the file's header.

    Raises:
        StremnError: the file is damaged or no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            turned = image.getexif().get(_ORIENTATION, 1) > 4
            return (height, width) if turned else (width, height)
    except (OSError, SyntaxError) as error:
        raise StremnError(f"{path} cannot be read as an image ({error}).") from error
