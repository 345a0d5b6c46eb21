"""Files of the official layouts: listed, paired, checked."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from stremn.data.readers.folders import images_in
from stremn.data.readers.problems import MOST_LISTED, DataProblem, LeaveOut
from stremn.data.readers.sequences import (
    LabelReader,
    StoredSequence,
    some,
)
from stremn.errors import StremnError
from stremn.media.video import natural_order


def pair_files(
    name: str, frames: Path, labels: Path, reader: LabelReader, late_objects: bool = False
) -> StoredSequence:
    """Return the sequence of a folder of frames and one of label maps, paired by name.

    Raises StremnError if there is no frame, a label map without one, or none that is a PNG.
    """
    frame_paths = images_if_there(frames)
    if not frame_paths:
        raise StremnError(f"{name}: {frames} holds no frames (images such as jpg or png).")
    label_files = images_if_there(labels)
    label_of = {path.stem: path for path in label_files if path.suffix.lower() == ".png"}
    if label_files and not label_of:
        raise StremnError(
            f"{name}: {labels} holds {len(label_files)} images, such as {label_files[0].name}, but "
            "no PNG. Label maps must be PNG: a lossy file such as a JPEG has no exact ids. "
            "`stremn check-mask` converts one."
        )
    extra = sorted(label_of.keys() - {path.stem for path in frame_paths}, key=natural_order)
    refuse_names(extra, f"{name}: {{count}} masks in {labels} have no frame")
    return StoredSequence(
        name,
        tuple(frame_paths),
        tuple(label_of.get(path.stem) for path in frame_paths),
        reader,
        late_objects,
    )


def every_sequence(
    names: Sequence[str],
    read: Callable[[str], StoredSequence],
    left_out: LeaveOut | None = None,
) -> tuple[StoredSequence, ...]:
    """Read the sequence of each name; call `left_out` for those that cannot be used.

    Without it raises one StremnError that lists what is wrong with any of them.
    """
    sequences, problems = [], []
    for name in names:
        try:
            sequences.append(read(name))
        except StremnError as error:
            if left_out is not None:
                left_out(DataProblem(name, str(error)))
                continue
            problems.append(str(error))
    if len(problems) == 1:
        raise StremnError(problems[0])
    if problems:
        rest = len(problems) - MOST_LISTED
        more = [f"and {rest} more"] if rest > 0 else []
        listed = "\n  ".join([*problems[:MOST_LISTED], *more])
        raise StremnError(f"{len(problems)} sequences cannot be used:\n  {listed}")
    return tuple(sequences)


def check_numbering(sequence: StoredSequence) -> None:
    """Refuse numbered frames with gaps between the numbers."""
    names = [path.stem for path in sequence.frame_paths]
    if not all(name.isdecimal() for name in names):
        return
    width, present = len(names[0]), {int(name) for name in names}
    gaps = [f"{i:0{width}d}" for i in range(min(present), max(present)) if i not in present]
    refuse_names(gaps, f"{sequence.name}: {{count}} frames are missing")


def check_every_label(sequence: StoredSequence) -> None:
    """Refuse a sequence with a frame that has no label map."""
    pairs = zip(sequence.frame_paths, sequence.label_paths, strict=True)
    missing = [frame.stem for frame, label in pairs if label is None]
    refuse_names(missing, f"{sequence.name}: {{count}} frames have no mask")


def check_given(sequence: StoredSequence) -> None:
    """Refuse a sequence without any label map."""
    if all(path is None for path in sequence.label_paths):
        raise StremnError(
            f"{sequence.name}: there is no mask at all, so no object is given. At least the "
            "first frame needs one, named like the frame."
        )


def check_present(names: Sequence[str], folder: Path, source: str) -> None:
    """Refuse names, given by `source`, that have no folder in `folder`."""
    present = {path.name for path in folder.iterdir() if path.is_dir()}
    check_names(names, present, source, f" in {folder}")


def check_names(names: Sequence[str], present: Iterable[str], source: str, where: str = "") -> None:
    """Refuse names, given by `source`, that are not among those present."""
    known = set(present)
    absent = [name for name in names if name not in known]
    if absent:
        raise StremnError(
            f"{len(absent)} sequences named by {source} are not there{where}: {some(absent)}."
        )


def refuse_names(names: Sequence[str], problem: str) -> None:
    """Raise StremnError if there are names; `problem` has a place for their {count}."""
    if names:
        raise StremnError(f"{problem.format(count=len(names))}: {some(names)}.")


def existing_folder(path: Path, tree: str) -> Path:
    """Return the path of a folder; raise StremnError that shows the layout if it is not there."""
    if not path.is_dir():
        raise StremnError(f"There is no folder {path}. Expected this layout:\n{tree}")
    return path


def sequence_folders(path: Path, tree: str) -> list[str]:
    """Return names of the folders in a folder, sorted naturally; raise StremnError if there is
    none."""
    names = sorted((p.name for p in path.iterdir() if p.is_dir()), key=natural_order)
    if not names:
        raise StremnError(f"{path} holds no sequence folders. Expected this layout:\n{tree}")
    return names


def images_if_there(folder: Path) -> list[Path]:
    """Return the images in a folder, sorted naturally; none if there is no such folder."""
    return images_in(folder) if folder.is_dir() else []


def plain_pairs(root: Path, tree: str) -> dict[str, tuple[Path, Path]]:
    """Map sequence names to the folders of their frames and label maps."""
    if not root.is_dir():
        raise StremnError(f"There is no folder {root}. Expected this layout:\n{tree}")
    if (root / "JPEGImages").is_dir():
        frames, labels = root / "JPEGImages", existing_folder(root / "Annotations", tree)
        names = sequence_folders(frames, tree)
        check_present(names, labels, f"{frames}")
        return {name: (frames / name, labels / name) for name in names}
    inner = [path for path in root.iterdir() if (path / "JPEGImages").is_dir()]
    if not inner:
        raise StremnError(
            f"{root} has neither a folder JPEGImages nor sequence folders that hold one. "
            f"Expected this layout:\n{tree}"
        )
    return {p.name: (p / "JPEGImages", existing_folder(p / "Annotations", tree)) for p in inner}


def davis_split(sets: Path, year: int, split: str, tree: str) -> list[str]:
    """Read the names of a split file; the 2016 release lists paths of images."""
    path, older = sets / str(year) / f"{split}.txt", sets / "480p" / f"{split}.txt"
    if year == 2016 and older.is_file() and not path.is_file():
        path = older
    lines = split_names(path, tree)
    names = [line.split()[0].split("/")[-2] if "/" in line else line for line in lines]
    return list(dict.fromkeys(names))


def split_names(path: Path, tree: str) -> list[str]:
    """Return what a split file names, a line each; raise StremnError if nothing."""
    if not path.is_file():
        raise StremnError(f"There is no split file {path}. Expected this layout:\n{tree}")
    try:
        lines = [line.strip() for line in path.read_text(encoding="utf-8").splitlines()]
    except (OSError, ValueError) as error:
        raise StremnError(f"The split file {path} cannot be read as text: {error}.") from error
    names = [line for line in lines if line]
    if not names:
        raise StremnError(f"The split file {path} is empty; it should name one sequence per line.")
    return names


def read_meta(path: Path, tree: str) -> dict[str, dict[str, Any]]:
    """Read what a meta file says of each object, by video name and object id."""
    if not path.is_file():
        raise StremnError(f"There is no file {path}. Expected this layout:\n{tree}")
    try:
        videos = json.loads(path.read_text(encoding="utf-8"))["videos"]
        return {name: dict(video["objects"]) for name, video in videos.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise StremnError(
            f"{path} is not a YouTube-VOS meta file: it should be JSON with a table "
            '"videos", and in each of them a table "objects".'
        ) from error


def classes_of(meta: Path) -> frozenset[str] | None:
    """Return classes of all objects of a meta file; None if there is no file."""
    if not meta.is_file():
        return None
    videos = read_meta(meta, "")
    entries = (entry for objects in videos.values() for entry in objects.values())
    return frozenset(str(entry["category"]) for entry in entries if "category" in entry)
