"""The overlay's rate, size, times, sound and shape of pixels; animated images; the table."""

import csv
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from stremn.errors import StremnError
from stremn.media.drawing import OverlayStyle
from stremn.media.formats.choosing import choose_formats
from stremn.media.formats.reformat import write_formats
from stremn.media.frame_results import FrameResult
from stremn.media.frames import Frame, FrameSource, frame_name
from stremn.media.pace import Pace
from stremn.media.results import ResultWriter
from stremn.media.video import open_frames

COUNT = 30
TONE = 48_000


def picture(index: int) -> np.ndarray:
    return np.full((48, 64, 3), 20 + 4 * index, np.uint8)


def labels(index: int) -> np.ndarray:
    found = np.zeros((48, 64), np.uint8)
    found[10:20, index : index + 10] = 3
    return found


def clip(
    path: Path,
    ticks: list[int] | None = None,
    codec: str = "aac",
    aspect: Fraction = Fraction(1),
) -> Path:
    """Frames at 10 a second (or at `ticks` of a tenth), and a tone: 100 Hz more every second."""
    with av.open(str(path), "w") as container:
        video = container.add_stream("libx264", rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, "yuv420p"
        video.codec_context.sample_aspect_ratio = aspect
        audio = container.add_stream(codec, rate=TONE)
        audio.layout = "mono"
        for index in range(COUNT):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame.pts = index if ticks is None else ticks[index]
            container.mux(video.encode(frame))
        container.mux(video.encode())
        second = np.arange(TONE) / TONE
        for number in range(3):
            wave = np.sin(2 * np.pi * (400 + 100 * number) * second).astype(np.float32)
            sound = av.AudioFrame.from_ndarray(wave[None], format="fltp", layout="mono")
            sound.sample_rate, sound.pts = TONE, number * TONE
            resampler = av.AudioResampler(format=audio.format, layout="mono", rate=TONE)
            for part in resampler.resample(sound):
                container.mux(audio.encode(part))
        container.mux(audio.encode())
    return path


def write(out: Path, source: FrameSource, stop: int | None = None, **options: Any) -> Path:
    """Write all frames of a source, as runs do."""
    usual: dict[str, Any] = {
        "first": source.start,
        "sound": source.sound,
        "pixel_aspect": source.pixel_aspect,
        "checkpoint_every": 8,
    }
    writer = ResultWriter(out, fps=source.fps, **(usual | options))
    with writer:
        for frame in source:
            if frame.index == stop:
                return out / "overlay.mp4"
            if frame.index < writer.next_frame:
                writer.redraw(frame)
                continue
            writer.write(FrameResult(frame, labels(frame.index), {}, (3, 8), confidences={3: 0.75}))
            if writer.checkpoint_due(frame.index):
                writer.checkpoint(lambda path: path.write_bytes(b"state"))
        writer.finish()
    return out / "overlay.mp4"


def heard(path: Path) -> tuple[np.ndarray, float]:
    """The sound of a file at 48000 samples a second, and when it begins."""
    with av.open(str(path)) as container:
        resampler = av.AudioResampler(format="fltp", layout="mono", rate=TONE)
        parts, start = [], None
        for frame in container.decode(audio=0):
            start = frame.time if start is None else start
            parts += [part.to_ndarray()[0] for part in resampler.resample(frame)]
    return np.concatenate(parts), float(start or 0)


def pitch(wave: np.ndarray) -> float:
    """The loudest frequency."""
    spectrum = np.abs(np.fft.rfft(wave * np.hanning(len(wave))))
    return float(np.fft.rfftfreq(len(wave), 1 / TONE)[spectrum.argmax()])


@pytest.mark.parametrize(("suffix", "codec"), [("mp4", "aac"), ("mkv", "pcm_s16le"), ("ts", "aac")])
def test_sound_is_kept_and_cut_to_the_part(tmp_path: Path, suffix: str, codec: str) -> None:
    source = open_frames(clip(tmp_path / f"clip.{suffix}", codec=codec), start=8, end=26)
    overlay = write(tmp_path / "out", source)
    wave, start = heard(overlay)
    assert len(wave) / TONE == pytest.approx(1.8, abs=0.06)
    at = [round((second - 0.8 - start) * TONE) for second in (1.2, 1.6, 2.2, 2.5)]
    assert pitch(wave[at[0] : at[1]]) == pytest.approx(500, abs=6)
    assert pitch(wave[at[2] : at[3]]) == pytest.approx(600, abs=6)
    assert [frame.time for frame in open_frames(overlay)] == pytest.approx(np.arange(18) / 10)
    with av.open(str(overlay)) as container:
        assert container.streams.audio[0].codec_context.name == "aac"


def test_recordings_that_were_joined_have_an_overlay(tmp_path: Path) -> None:
    once = clip(tmp_path / "once.ts").read_bytes()
    (tmp_path / "twice.ts").write_bytes(once + once)
    overlay = write(tmp_path / "out", open_frames(tmp_path / "twice.ts"))
    assert len(list(open_frames(overlay))) == 2 * COUNT
    assert len(heard(overlay)[0]) / TONE == pytest.approx(3, abs=0.1)


def test_the_overlay_says_how_its_colors_are_coded(tmp_path: Path) -> None:
    overlay = write(tmp_path / "out", open_frames(clip(tmp_path / "clip.mp4")))
    with av.open(str(overlay)) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_range) == (6, 1)  # BT.601, video levels


def test_a_video_without_sound_has_none(tmp_path: Path) -> None:
    source = open_frames(clip(tmp_path / "clip.mp4"))
    overlay = write(tmp_path / "out", source, sound=None)
    again = write(tmp_path / "again", open_frames(overlay))
    with av.open(str(again)) as container:
        assert not container.streams.audio


def test_damaged_sound_leaves_the_pictures(tmp_path: Path) -> None:
    source = open_frames(clip(tmp_path / "clip.mp4"))
    (tmp_path / "broken.mp4").write_bytes(b"nothing")
    overlay = write(tmp_path / "out", source, sound=tmp_path / "broken.mp4")
    assert len(list(open_frames(overlay))) == COUNT


def test_sound_of_an_unknown_codec_leaves_the_pictures(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = clip(tmp_path / "clip.mkv")
    path.write_bytes(path.read_bytes().replace(b"A_AAC", b"A_XYZ"))
    overlay = write(tmp_path / "out", open_frames(path))
    assert len(list(open_frames(overlay))) == COUNT
    assert "clip.mkv is left out: its codec is not known here" in caplog.text


VIDEOS = ("overlay.mp4", "green-screen.mp4", "mask-videos/3.mp4")
FORMATS = choose_formats(["green-screen", "mask-videos"])


def uneven(path: Path) -> Path:
    """A clip whose frames are shown for a tenth of a second to three."""
    return clip(path, np.cumsum(np.random.default_rng(1).integers(1, 4, COUNT)).tolist())


def times(path: Path) -> list[float | None]:
    return [frame.time for frame in open_frames(path)]


@pytest.mark.parametrize("stop", [None, 3, 13])
def test_uneven_times_are_kept(tmp_path: Path, stop: int | None) -> None:
    """In every video of a run, also when it was interrupted between or after checkpoints."""
    path, out = uneven(tmp_path / "clip.mkv"), tmp_path / "out"
    if stop is not None:
        write(out, open_frames(path), stop=stop, formats=FORMATS)
        for name in VIDEOS:
            assert times(out / name) == pytest.approx(times(path)[:stop], abs=1e-4)
    existing = "refuse" if stop is None else "resume"
    write(out, open_frames(path), formats=FORMATS, existing=existing)
    for name in VIDEOS:
        assert times(out / name) == pytest.approx(times(path), abs=1e-4)


@pytest.mark.parametrize("shown", [True, False])
def test_videos_written_afterwards_have_the_times_of_the_run(tmp_path: Path, shown: bool) -> None:
    path, out = uneven(tmp_path / "clip.mkv"), tmp_path / "out"
    write(out, open_frames(path))
    write_formats(out, FORMATS if shown else FORMATS[1:], open_frames(path) if shown else None)
    for name in VIDEOS[1 if shown else 2 :]:
        assert times(out / name) == pytest.approx(times(path), abs=1e-4)


def test_a_run_that_was_begun_without_times_is_resumed_at_its_rate(tmp_path: Path) -> None:
    path, out = uneven(tmp_path / "clip.mkv"), tmp_path / "out"
    write(out, open_frames(path), stop=13, formats=FORMATS)
    for file in (out / ".resume").rglob("times.json"):
        file.unlink()
    write(out, open_frames(path), formats=FORMATS, existing="resume")
    assert times(out / VIDEOS[0]) == pytest.approx(times(path), abs=1e-4)
    steps = np.diff(times(out / VIDEOS[1]))  # type: ignore[arg-type]
    assert len(steps) == COUNT - 1
    assert np.ptp(steps) < 1e-4


@pytest.mark.parametrize("turned", [False, True])
def test_the_shape_of_pixels_is_kept(tmp_path: Path, turned: bool) -> None:
    source = open_frames(clip(tmp_path / "clip.mp4", aspect=Fraction(4, 3)))
    assert source.pixel_aspect == Fraction(4, 3)
    style = OverlayStyle(scale=0.5 if turned else 1)
    write(tmp_path / "out", source, style=style, formats=FORMATS)
    for name in VIDEOS:
        with av.open(str(tmp_path / "out" / name)) as container:
            assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.parametrize("shown", [True, False])
def test_the_shape_of_pixels_is_kept_afterwards(tmp_path: Path, shown: bool) -> None:
    path, out = clip(tmp_path / "clip.mp4", aspect=Fraction(4, 3)), tmp_path / "out"
    write(out, open_frames(path))
    write_formats(out, FORMATS[1:], open_frames(path) if shown else None)
    with av.open(str(out / VIDEOS[2])) as container:
        assert container.streams.video[0].sample_aspect_ratio == Fraction(4, 3)


@pytest.mark.parametrize("stop", [3, 8, 13, 21])
def test_fewer_frames_a_second(tmp_path: Path, stop: int) -> None:
    """Also when the run was interrupted, the file is the same."""
    path = clip(tmp_path / "clip.mp4")
    options = {"overlay_fps": 4.0, "style": OverlayStyle(scale=0.5)}
    whole = write(tmp_path / "whole", open_frames(path), **options)
    frames = list(open_frames(whole))
    assert frames[0].image.shape == (24, 32, 3)
    shown = [
        index for index in range(COUNT) if index == 0 or index * 4 // 10 > (index - 1) * 4 // 10
    ]
    assert [frame.time for frame in frames] == pytest.approx([index / 10 for index in shown])
    write(tmp_path / "parts", open_frames(path), stop=stop, **options)
    resumed = write(tmp_path / "parts", open_frames(path), existing="resume", **options)
    assert resumed.read_bytes() == whole.read_bytes()
    for name in ("objects.csv", "memory.json"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_images_have_the_rate_that_is_asked_for(tmp_path: Path) -> None:
    source = open_frames(np.stack([picture(index) for index in range(6)]))
    overlay = write(tmp_path / "out", source, overlay_fps=5.0)
    assert [frame.time for frame in open_frames(overlay)] == pytest.approx(np.arange(6) / 5)


@pytest.mark.parametrize(
    ("rate", "wanted", "message"),
    [(25, 30, "--fps 30 is more than the 25 frames/s"), (25, 0, "from 0.01 to 1000, got 0")],
)
def test_rates_that_are_refused(rate: float, wanted: float, message: str) -> None:
    with pytest.raises(StremnError, match=message):
        Pace.of(rate, wanted)
    with pytest.raises(StremnError, match=r"--scale of the overlay is from 0\.01 to 4, got 0"):
        OverlayStyle(scale=0)


# ---------------------------------------------------------------- the table


def test_a_row_for_every_object_and_frame(tmp_path: Path) -> None:
    write(tmp_path / "out", open_frames(clip(tmp_path / "clip.mp4"), start=5))
    with (tmp_path / "out" / "objects.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [(int(row["frame"]), row["object"]) for row in rows] == [
        (frame, item) for frame in range(5, COUNT) for item in ("3", "8")
    ]
    assert rows[4] == {
        "frame": "7", "name": "00007", "time": "0.7", "object": "3", "area": "100", "x": "7",
        "y": "10", "width": "10", "height": "10", "center_x": "11.50", "center_y": "14.50",
        "confidence": "0.7500",
    }  # fmt: skip
    assert rows[5]["area"] == "0"
    assert rows[5]["x"] == rows[5]["center_x"] == rows[5]["confidence"] == ""


def test_a_row_that_was_cut_off_is_written_again(tmp_path: Path) -> None:
    path = clip(tmp_path / "clip.mp4")
    write(tmp_path / "whole", open_frames(path))
    write(tmp_path / "parts", open_frames(path), stop=11)
    table = tmp_path / "parts" / "objects.csv"
    table.write_bytes(table.read_bytes()[:-7])
    write(tmp_path / "parts", open_frames(path), existing="resume")
    assert table.read_bytes() == (tmp_path / "whole" / "objects.csv").read_bytes()


# ---------------------------------------------------------------- animations


@pytest.mark.parametrize("suffix", ["webp", "png", "gif"])
def test_an_animated_image_is_a_video(tmp_path: Path, suffix: str) -> None:
    images = [
        Image.fromarray(cv2.circle(picture(i), (8 * i, 20), 5, (250, 9, 9), -1)) for i in range(5)
    ]
    path = tmp_path / f"a.{suffix}"
    lossless = {"lossless": True} if suffix == "webp" else {}
    images[0].save(path, save_all=True, append_images=images[1:], duration=200, loop=0, **lossless)
    source = open_frames(path)
    assert source.count in (5, None)
    assert source.fps == pytest.approx(5)
    frames = list(source)
    assert [frame.index for frame in frames] == list(range(5))
    assert [frame.time for frame in frames] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8])
    for frame, image in zip(frames, images, strict=True):
        assert np.abs(frame.image.astype(int) - np.asarray(image)).mean() < 6
    assert [frame.index for frame in open_frames(path, start="0.35s")] == [2, 3, 4]
    for frame in open_frames(path).backward(1, 4):
        np.testing.assert_array_equal(frame.image, frames[frame.index].image)
    with pytest.raises(StremnError, match=r"--end 1\.3s is after the end"):
        open_frames(path, end="1.3s")


def test_a_still_image_stays_one(tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "a.png")
    source = open_frames(tmp_path / "a.png")
    assert source.fps is None
    assert source.names == ("a",)


def test_a_damaged_animation_is_told(tmp_path: Path) -> None:
    images = [
        Image.fromarray(np.random.default_rng(i).integers(0, 255, (48, 64, 3), np.uint8))
        for i in range(4)
    ]
    path = tmp_path / "a.png"
    images[0].save(path, save_all=True, append_images=images[1:], duration=100)
    path.write_bytes(path.read_bytes()[:-9000])
    with pytest.raises(StremnError, match=r"a\.png (is damaged at frame \d|cannot be read)"):
        list(open_frames(path))
    frame = Frame(0, frame_name(0), picture(0))
    assert frame.time is None
