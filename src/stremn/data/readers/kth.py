"""KTH in its official layout, cut into clips as the papers cut it."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from stremn.data.readers.frame_clips import Span, SpanClips, Split
from stremn.errors import StremnError

KTH_PERSONS: Mapping[Split, range] = {
    "train": range(1, 15),
    "val": range(15, 17),
    "test": range(17, 26),
}
"""Persons 1-16 train and 17-25 test as in every peer; 15 and 16 are held out for validation."""
KTH_FAST_ACTIONS = frozenset({"jogging", "running"})
_KTH_LINE = re.compile(r"^(person(\d\d)_([a-z]+)_d\d)\s+frames\s+(.+)$")


def kth_sequences(listing: Path) -> dict[str, tuple[tuple[int, int], ...]]:
    """Read KTH's `00sequences.txt`: name -> (first, last) frames, from 1, of each sub-sequence.

    Only these ranges hold a person; the official videos hold empty frames between them.
    """
    sequences: dict[str, tuple[tuple[int, int], ...]] = {}
    for line in listing.read_text(encoding="latin-1").splitlines():
        match = _KTH_LINE.match(line.strip())
        if match:
            pairs = re.findall(r"(\d+)\s*-\s*(\d+)", match.group(4))
            sequences[match.group(1)] = tuple((int(first), int(last)) for first, last in pairs)
    if not sequences:
        raise StremnError(
            f"{listing} lists no sequences; lines like "
            "'person01_boxing_d1  frames  1-95, 96-185' were expected."
        )
    return sequences


def kth(
    root: Path,
    split: Split,
    frames: int = 30,
    size: int = 128,
    persons: Sequence[int] | None = None,
) -> SpanClips:
    """Return KTH clips as the papers cut it: ranges of `00sequences.txt`, walked back from each
    end.

    Jogging and running advance by 3 frames between clips, the other actions by a whole clip. Frames
    are grey, the whole 160x120 picture resized to a square.

    Args:
        root: folder with `00sequences.txt` and the official `person01_boxing_d1_uncomp.avi`,
            directly or in folders per action.
        split: persons 1-14 train, 15-16 val, 17-25 test.
        frames: frames in a clip (10 observed and 20 predicted in the paper).
        size: side of the square in pixels.
        persons: other persons than the split's, for smoke tests on a part of the data.
    """
    listing = root / "00sequences.txt"
    if not listing.exists():
        raise StremnError(
            f"{root} is not KTH in its official layout: 00sequences.txt is missing. Get it from "
            "the data set's download page; put it into the folder of the avi files."
        )
    chosen = KTH_PERSONS[split] if persons is None else persons
    spans: list[Span] = []
    names: dict[Path, str] = {}
    videos = {p.stem.removesuffix("_uncomp"): p for p in sorted(root.rglob("person*_uncomp.*"))}
    for name, ranges in kth_sequences(listing).items():
        person, action = int(name[6:8]), name.split("_")[1]
        if person not in chosen or name not in videos:
            continue
        names[videos[name]] = f"person {person:02d}"
        stride = 3 if action in KTH_FAST_ACTIONS else frames
        for first, last in ranges:
            starts = range(last - frames, first - 2, -stride)  # from 0; `last` is inclusive
            spans.extend(Span(videos[name], start, frames) for start in starts)
    if not spans:
        raise StremnError(
            f"{root} holds no KTH clips of {frames} frames for persons "
            f"{', '.join(f'{p:02d}' for p in chosen)}: files like "
            "person01_boxing_d1_uncomp.avi were expected in it or in folders per action."
        )
    return SpanClips(spans, size, channels=1, names=names)
