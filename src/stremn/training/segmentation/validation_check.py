"""Check the videos of a validation before the first step, not at the first validation."""

from __future__ import annotations

from stremn.data.readers.checking import Told, look_at_each
from stremn.data.readers.problems import first_lines
from stremn.data.readers.sequences import SequenceSet, VideoSequence
from stremn.errors import StremnError
from stremn.evaluation.segmentation.evaluation import counted


def check_validation_videos(
    videos: SequenceSet, frames: int | None, *, read: bool, told: Told | None = None
) -> None:
    """Check that a validation can stream the videos.

    Sizes and first masks are always checked, which takes little time.

    Args:
        videos: of the validation.
        frames: number of frames of each video that it uses; None: all.
        read: decode these frames and their label maps too, so that damaged files are found.
        told: called with how many frames were decoded, and how many there are.

    Raises:
        StremnError: lists everything that is wrong.
    """
    problems = [found for video in videos if (found := _misfit(video)) is not None]
    if not problems and read:
        problems = _unreadable(videos, frames, told)
    if problems:
        raise StremnError(
            f"{len(problems)} problem(s) in the videos of the validation:\n{first_lines(problems)}"
            "\nRepair them, or name the videos to use in validation.sequences."
        )


def check_monitor(monitor: str, videos: SequenceSet, frames: int | None) -> None:
    """Check that a validation scores something, and the video that `monitor` may name.

    monitor: "J_<video>" or the name of another score. frames: as in `check_validation_videos`.
    Raises StremnError if that is not so.
    """
    scored = [f"J_{video.name}" for video in videos if _is_scored(video, videos, frames)]
    if not scored:
        raise StremnError("Validation has no frame to score; raise validation.frames.")
    if monitor.startswith("J_") and monitor not in scored:
        raise StremnError(
            f"train.monitor is {monitor!r}, but of single videos the validation reports only "
            f'{", ".join(scored)}. Choose one of these, or "J", the mean over all objects.'
        )


def _misfit(video: VideoSequence) -> str | None:
    try:
        video.check()
    except StremnError as error:
        return str(error)
    return None


def _unreadable(videos: SequenceSet, frames: int | None, told: Told | None) -> list[str]:
    places = [(video, index) for video in videos for index in range(_length(video, frames))]

    def look(place: int) -> str | None:
        video, index = places[place]
        try:
            video.frame(index)
            video.label(index)
        except StremnError as error:
            return f"{video.name}: {error}"
        return None

    return [found for found in look_at_each(look, len(places), told) if found is not None]


def _is_scored(video: VideoSequence, videos: SequenceSet, frames: int | None) -> bool:
    length = _length(video, frames)
    return any(ids and index < length for index, ids in counted(video, videos.rule).items())


def _length(video: VideoSequence, frames: int | None) -> int:
    return len(video) if frames is None else min(frames, len(video))
