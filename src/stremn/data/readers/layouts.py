"""Readers of video object segmentation data in their official layouts.

Every reader returns a :class:`~stremn.data.readers.sequences.SequenceSet`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from stremn.data.readers.layout_files import (
    check_every_label,
    check_given,
    check_names,
    check_numbering,
    check_present,
    classes_of,
    davis_split,
    every_sequence,
    existing_folder,
    images_if_there,
    pair_files,
    plain_pairs,
    read_meta,
    refuse_names,
    sequence_folders,
    split_names,
)
from stremn.data.readers.problems import LeaveOut
from stremn.data.readers.sequences import (
    AFTER_GIVEN_RULE,
    DAVIS_RULE,
    LVOS_RULE,
    ScoringRule,
    SequenceSet,
    StoredSequence,
    read_binary,
    read_indices,
)
from stremn.errors import StremnError
from stremn.media.video import natural_order

LVOS_STEP = 5
"""LVOS scores every fifth frame of an object's range."""

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
    root: Path,
    split: str = "val",
    year: int = 2017,
    resolution: str = "480p",
    left_out: LeaveOut | None = None,
) -> SequenceSet:
    """Read DAVIS 2016 or 2017. Objects are those of the first frame; 2016 has one object.

    Splits whose name starts with "test" are annotated in the first frame only.

    Args:
        root: folder that holds ``JPEGImages``, ``Annotations`` and ``ImageSets``.
        split: name of a file in ``ImageSets/<year>``, such as "train", "val" or "test-dev".
        year: 2016 (one object: every non-zero pixel) or 2017 (ids).
        resolution: "480p" or "Full-Resolution".
        left_out: called for sequences that cannot be used; None refuses them.

    Raises:
        StremnError: wrong layout, a sequence of the split that is not there, missing or extra
            frames or masks.
    """
    tree = _DAVIS_TREE.format(root=root, resolution=resolution, year=year, split=split)
    frames = existing_folder(root / "JPEGImages" / resolution, tree)
    labels = existing_folder(root / "Annotations" / resolution, tree)
    names = davis_split(root / "ImageSets", year, split, tree)
    check_present(names, frames, f"split {split!r} of {root}")
    reader = read_binary if year == 2016 else read_indices
    hidden = split.startswith("test")
    check_labels = check_given if hidden else check_every_label

    def read(name: str) -> StoredSequence:
        sequence = pair_files(name, frames / name, labels / name, reader)
        check_numbering(sequence)
        check_labels(sequence)
        return sequence

    return SequenceSet(
        f"DAVIS {year}",
        split,
        every_sequence(names, read, left_out),
        DAVIS_RULE,
        submission="davis" if hidden else "",
    )


def read_youtube_vos(
    root: Path,
    split: str = "valid",
    year: int = 2019,
    all_frames: bool = False,
    left_out: LeaveOut | None = None,
) -> SequenceSet:
    """Read YouTube-VOS 2018 or 2019; objects may be given in later frames (``meta.json``).

    The split into seen and unseen classes needs ``train/meta.json`` beside the split.

    Args:
        root: folder that holds ``train``, ``valid``, ``test``.
        split: "train", "valid" or "test".
        year: 2018 or 2019; the layout is the same.
        all_frames: show the model every frame of ``<split>_all_frames``; masks of the 6-fps frames
            are still the ones that count. Otherwise only the 6-fps frames are shown.
        left_out: called for videos that cannot be used; None refuses them.

    Raises:
        StremnError: wrong layout, or videos, frames or masks that do not fit together.
    """
    tree = _YOUTUBE_TREE.format(root=root, split=split)
    sparse = existing_folder(root / split / "JPEGImages", tree)
    labels = existing_folder(root / split / "Annotations", tree)
    shown = (
        existing_folder(root / f"{split}_all_frames" / "JPEGImages", tree) if all_frames else sparse
    )
    videos = read_meta(root / split / "meta.json", tree)
    names = sorted(videos)
    for folder in (sparse, labels, shown):
        check_present(names, folder, f"{root / split / 'meta.json'}")
    sequences = every_sequence(
        names, lambda n: _from_meta(n, shown / n, labels / n, sparse / n, videos[n]), left_out
    )
    return SequenceSet(
        f"YouTube-VOS {year}",
        split,
        sequences,
        AFTER_GIVEN_RULE,
        frames="every frame" if all_frames else "6-fps frames",
        seen_classes=classes_of(root / "train" / "meta.json"),
        submission="youtube-vos",
    )


def read_lvos(root: Path, split: str = "valid") -> SequenceSet:
    """Read LVOS v1 or v2: long videos; objects may be given in later frames.

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
    groups = frozenset(split_names(unseen, "")) if unseen.is_file() else None
    meta = next(
        (base / n for n in ("meta.json", f"{split}_meta.json") if (base / n).is_file()), None
    )
    videos = {} if meta is None else read_meta(meta, "")
    sequences = tuple(_with_ranges(s, videos.get(s.name)) for s in _read_split(root, split))
    return SequenceSet("LVOS", split, sequences, LVOS_RULE, unseen_videos=groups, submission="lvos")


def _with_ranges(sequence: StoredSequence, meta: Mapping[str, Any] | None) -> StoredSequence:
    """Give an LVOS sequence the frame ranges of its objects, if `meta` has them."""
    if meta is None or not all("frame_range" in entry for entry in meta.values()):
        return sequence
    width = len(sequence.frame_name(0))
    ranges = {int(i): entry["frame_range"] for i, entry in meta.items()}
    scored_at = {
        i: frozenset(f"{n:0{width}d}" for n in range(int(r["start"]), int(r["end"]), LVOS_STEP))
        for i, r in ranges.items()
    }
    given_at = {i: f"{int(r['start']):0{width}d}" for i, r in ranges.items()}
    missing = sorted(set(given_at.values()) - {path.stem for path in sequence.frame_paths})
    refuse_names(missing, f"{sequence.name}: {{count}} frames that give objects are missing")
    return replace(sequence, given_at=given_at, scored_at=scored_at)


def read_mose(root: Path, split: str = "valid") -> SequenceSet:
    """Read MOSE: crowded scenes; ``valid`` is annotated only where objects are given.

    Args:
        root: folder that holds ``train`` and ``valid``, or one of these folders.
        split: "train" or "valid".

    Raises:
        StremnError: wrong layout, or frames and masks that do not fit together.
    """
    return SequenceSet("MOSE", split, _read_split(root, split), DAVIS_RULE, submission="mose")


def read_long_time_video(root: Path) -> SequenceSet:
    """Read Long-Time Video: three videos of thousands of frames, about twenty annotated.

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
    left_out: LeaveOut | None = None,
) -> SequenceSet:
    """Read plain folders: ``JPEGImages/<sequence>`` with ``Annotations/<sequence>``, or the same
    inside a folder for each sequence.

    Any frame names, sorted naturally ("frame9" before "frame10"). A label map has its frame's name.

    Args:
        root: the folder.
        split_file: text file with one sequence name per line; all sequences by default.
        late_objects: later label maps may give new objects; else only the first one does.
        rule: which annotated frames count.
        left_out: called for sequences that cannot be used; None refuses them.

    Raises:
        StremnError: wrong layout, a sequence of the split that is not there, a label map without
            a frame.
    """
    tree = _PLAIN_TREE.format(root=root)
    pairs = plain_pairs(root, tree)
    names = sorted(pairs, key=natural_order)
    if split_file is not None:
        names = split_names(split_file, tree)
        check_names(names, pairs, f"split file {split_file}")
    sequences = every_sequence(names, lambda n: _given(n, *pairs[n], late_objects), left_out)
    split = "all" if split_file is None else split_file.stem
    return SequenceSet(root.name, split, sequences, rule)


def _given(name: str, frames: Path, labels: Path, late_objects: bool = True) -> StoredSequence:
    """Pair the frames of a sequence with label maps of ids, in which some object must be given."""
    sequence = pair_files(name, frames, labels, read_indices, late_objects)
    check_given(sequence)
    return sequence


def _read_split(root: Path, split: str) -> tuple[StoredSequence, ...]:
    tree = _SPLIT_TREE.format(root=root, split=split)
    base = _split_folder(root, split)
    frames, labels = (
        existing_folder(base / "JPEGImages", tree),
        existing_folder(base / "Annotations", tree),
    )
    names = sequence_folders(frames, tree)
    check_present(names, labels, f"{frames}")
    return every_sequence(names, lambda n: _given(n, frames / n, labels / n))


def _split_folder(root: Path, split: str) -> Path:
    return root / split if (root / split).is_dir() else root


def _from_meta(
    name: str, frames: Path, labels: Path, sparse: Path, meta: Mapping[str, Any]
) -> StoredSequence:
    """Pair a YouTube-VOS video; `meta` says of each object when it is given and its
    class."""
    paired = pair_files(name, frames, labels, read_indices, late_objects=True)
    expected = frozenset(path.stem for path in images_if_there(sparse))
    refuse_names(
        sorted(expected - {p.stem for p in paired.frame_paths}, key=natural_order),
        f"{name}: {frames} lacks {{count}} frames that {sparse} has",
    )
    objects = {int(i): entry for i, entry in meta.items()}
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
