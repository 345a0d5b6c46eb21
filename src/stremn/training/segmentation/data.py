"""Build the clips of a recipe: open and check the data sets, make the sources."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, TypeVar, get_type_hints

from pydantic import TypeAdapter, ValidationError

from stremn.data.clips.clip import ClipDataset, ClipSource, Stage
from stremn.data.clips.composed import ComposedClipParameters, ComposedClips
from stremn.data.clips.cut_outs import require_whole
from stremn.data.clips.rendered import RenderedClipParameters, RenderedClips
from stremn.data.clips.still_images import StillImageClips
from stremn.data.clips.still_layers import StillClipParameters
from stremn.data.clips.video_clips import GapSchedule, VideoClipParameters, VideoClips
from stremn.data.readers.checking import telling
from stremn.data.readers.labelled_videos import VideoReader, check_videos, joined
from stremn.data.readers.layouts import read_davis, read_folders, read_youtube_vos
from stremn.data.readers.paths import place
from stremn.data.readers.problems import DataProblem, LeaveOut, refuse
from stremn.data.readers.sequences import SequenceSet
from stremn.data.readers.still_sets import check_pairing, check_stills, open_stills, without
from stremn.data.readers.stills import StillImages
from stremn.errors import StremnError
from stremn.moved import with_current_keys
from stremn.training.segmentation.recipe import (
    DataSection,
    Recipe,
    SourceSection,
    VideosSection,
)
from stremn.training.segmentation.validation_check import check_monitor, check_validation_videos

_MATERIAL = ("stills", "videos", "gaps")
_USED: dict[str, tuple[str, ...]] = {
    "stills": ("stills",),
    "videos": ("videos", "gaps"),
    "composed": _MATERIAL,
    "rendered": ("stills",),
}
"""Kind of clip -> those of these keys that it uses."""

logger = logging.getLogger("stremn.training.fit")

ParametersT = TypeVar("ParametersT")


@dataclass(frozen=True)
class OpenData:
    """The opened sets by name; each is opened once, so that sources share what is cached."""

    stills: dict[str, StillImages]
    readers: dict[str, VideoReader]


def open_data(data: DataSection, sources: Collection[str], *, check: bool) -> OpenData:
    """Open what `sources` need; with `check`, read it all and treat problems as the recipe says.

    Raises `StremnError` for a source with a key that its kind does not use, before anything is
    read, and one that lists every problem of every set together.
    """
    for name in sources:
        _refuse_unused(data.sources[name], name)
    checked = check and data.check != "off"
    problems: list[DataProblem] = []
    used = [data.sources[name] for name in sources]
    stills: dict[str, StillImages] = {
        name: open_stills(place(section.path), section.kind, section.layout)
        for name, section in data.stills.items()
        if any(name in source.stills for source in used)
    }
    videos = {
        name: list(open_videos(section, problems.append if checked else None))
        for name, section in data.videos.items()
        if any(name in source.videos for source in used)
    }
    if checked:
        wrong_stills = {
            name: check_stills(each, telling(name, logger)) for name, each in stills.items()
        }
        wrong_videos = {
            name: check_videos(each, telling(name, logger)) for name, each in videos.items()
        }
        problems += [p for each in wrong_stills.values() for p in each]
        for name in stills:
            problems += check_pairing(place(data.stills[name].path), data.stills[name].layout)
        problems += [p for each in wrong_videos.values() for p in each]
        if data.check == "refuse":
            refuse(problems)
        for problem in problems:
            logger.warning("left out: %s: %s", problem.where, problem.reason)
        stills = {name: without(each, wrong_stills[name]) for name, each in stills.items()}
        for name, each in videos.items():
            bad = {problem.where for problem in wrong_videos[name]}
            videos[name] = [video for video in each if video.name not in bad]
            if not videos[name]:
                raise StremnError(
                    f"Every video of data.videos.{name} has a problem; none is left to train on."
                )
    if check:
        composed = {each for source in used if source.kind == "composed" for each in source.stills}
        require_whole({f"data.stills.{name}": stills[name] for name in sorted(composed)})
    limit = data.cache * 2**20
    return OpenData(stills, {name: VideoReader(each, limit) for name, each in videos.items()})


def used_sources(recipe: Recipe) -> list[str]:
    """Return names of the sources that some stage draws from, sorted."""
    return sorted({name for stage in recipe.stages for name in stage.sources})


def clip_dataset(recipe: Recipe, data: OpenData) -> ClipDataset:
    """Return all clips of the training, numbered through its stages."""
    sources = {name: clip_source(recipe.data, name, data) for name in used_sources(recipe)}
    stages = [
        Stage((last - first) * stage.batch, stage.frames, stage.size, stage.sources)
        for stage, (first, last) in recipe.spans()
    ]
    return ClipDataset(sources, stages, recipe.train.seed)


def clip_source(data: DataSection, name: str, opened: OpenData) -> ClipSource:
    """Return the clip source `name` of the recipe on sets that are open."""
    section = data.sources[name]
    stills = [opened.stills[each] for each in section.stills]
    given = [data.stills[each].weight for each in section.stills]
    weights = [float(w) for w in given if w is not None] or None
    if weights is not None and len(weights) != len(given):
        raise StremnError(f"data.sources.{name}: give every set of stills a weight, or none.")
    readers = [opened.readers[each] for each in section.videos]
    reader = joined(readers) if readers else None
    gaps = GapSchedule(section.gaps) if section.gaps is not None else None
    parameters = clip_parameters(section, name)
    if isinstance(parameters, StillClipParameters):
        return StillImageClips(stills, weights, parameters)
    if isinstance(parameters, RenderedClipParameters):
        return RenderedClips(stills, weights, parameters)
    if isinstance(parameters, ComposedClipParameters):
        return ComposedClips(stills, reader, gaps, parameters, weights)
    if reader is None:
        raise StremnError(f"data.sources.{name} makes clips of videos, but names none.")
    return VideoClips(reader, gaps, parameters)


def clip_parameters(
    section: SourceSection, name: str
) -> StillClipParameters | ComposedClipParameters | RenderedClipParameters | VideoClipParameters:
    """Return the parameters of the source `name`.

    Raises StremnError for what they do not have, and for another key that the kind does not use.
    """
    _refuse_unused(section, name)
    where = f"data.sources.{name}.parameters"
    match section.kind:
        case "stills":
            return _parameters(StillClipParameters, section.parameters, where)
        case "composed":
            return _parameters(ComposedClipParameters, section.parameters, where)
        case "rendered":
            return _parameters(RenderedClipParameters, section.parameters, where)
        case "videos":
            return _parameters(VideoClipParameters, section.parameters, where)


def _refuse_unused(section: SourceSection, name: str) -> None:
    """Refuse stills, videos or gaps that clips of the section's kind do not use."""
    used = _USED[section.kind]
    unused = [key for key in _MATERIAL if getattr(section, key) and key not in used]
    if unused:
        wrong, right = " and ".join(unused), " and ".join(used)
        raise StremnError(
            f'data.sources.{name} has {wrong}, but kind = "{section.kind}" uses only {right}. '
            f'Remove {wrong}, or choose kind = "composed", which uses stills, videos and gaps.'
        )


def validation_videos(recipe: Recipe) -> SequenceSet | None:
    """Open and check the videos that the recipe validates on; None if it does not validate.

    Problems are always refused: left out, a video would change the scores. With data.check "off"
    no frame is read.

    Raises StremnError for a name that the set does not have, problems of the videos, and a video's
    score as train.monitor that is not reported.
    """
    section = recipe.validation
    if section is None:
        return None
    videos = open_videos(section.videos)
    videos = videos.only(section.sequences) if section.sequences else videos
    read, told = recipe.data.check != "off", telling("the videos of the validation", logger)
    check_validation_videos(videos, section.frames, read=read, told=told)
    check_monitor(recipe.train.monitor, videos, section.frames)
    return videos


def open_videos(section: VideosSection, left_out: LeaveOut | None = None) -> SequenceSet:
    """Open a data set of videos in its layout, or those of its videos that are named.

    `left_out` is called for videos that cannot be used; None refuses them. Raises StremnError for a
    name that the set does not have.
    """
    root = place(section.path)
    broken: list[DataProblem] = []
    leave = broken.append if left_out else None
    readers: dict[str, Callable[[], SequenceSet]] = {
        "davis": lambda: read_davis(root, section.split, section.year, left_out=leave),
        "youtube-vos": lambda: read_youtube_vos(root, section.split, left_out=leave),
        "folders": lambda: read_folders(root, late_objects=True, left_out=leave),
    }
    videos = readers[section.layout]()
    wanted = section.names or [*(video.name for video in videos), *(p.where for p in broken)]
    unusable = [problem for problem in broken if problem.where in wanted]
    if left_out is not None:
        for problem in unusable:
            left_out(problem)
    names = {problem.where for problem in unusable}
    return videos.only([name for name in wanted if name not in names])


def _parameters(kind: type[ParametersT], values: Mapping[str, Any], where: str) -> ParametersT:
    """Build the parameters of a clip source.

    Raises StremnError for a key that it does not have or a value that does not fit.
    """
    values = with_current_keys(values, where)
    _refuse_unknown(kind, values, where)
    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        wrong = [
            f"{'.'.join(map(str, detail['loc']))}: {detail['msg']}, got {detail['input']!r}"
            for detail in error.errors()
        ]
        raise StremnError(f"{where}: {'; '.join(wrong)}.") from error


def _refuse_unknown(kind: Any, values: Mapping[str, Any], where: str) -> None:
    known = {field.name for field in fields(kind)}
    hints = get_type_hints(kind)
    for key, value in values.items():
        if key not in known:
            raise StremnError(
                f"Unknown key {key!r} in {where}. Known keys: {', '.join(sorted(known))}."
            )
        if is_dataclass(hints[key]) and isinstance(value, Mapping):
            _refuse_unknown(hints[key], value, f"{where}.{key}")
