"""Frames in: every kind of input, every kind of damage, bounded read-ahead and write-behind."""

import io
import itertools
import struct
import threading
import time
from collections.abc import Iterable, Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any, TypeVar

import av
import cv2
import numpy as np
import pytest
from PIL import Image

from stremn.errors import StremnError
from stremn.media.frames import FrameSource
from stremn.media.mask_sets import open_masks
from stremn.media.overlap import ReadAhead, WriteBehind
from stremn.media.video import (
    _from_capture,
    as_picture,
    natural_order,
    open_frames,
    read_image,
)

T = TypeVar("T")


def picture(index: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A smooth picture whose brightness tells its index."""
    image = np.full((height, width, 3), 20 + 4 * index, dtype=np.uint8)
    image[: height // 2, : width // 2, 0] = 200
    return image


def write_clip(
    path: Path,
    count: int,
    options: dict[str, str] | None = None,
    aspect: Fraction = Fraction(1),
) -> Path:
    noise = np.random.default_rng(0).integers(0, 60, (48, 64, 3), dtype=np.uint8)
    with av.open(str(path), "w", options=options or {}) as container:
        stream = container.add_stream("libx264" if path.suffix != ".avi" else "mpeg4", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for index in range(count):
            image = picture(index % 50) // 2 + np.roll(noise, index, axis=1)
            for packet in stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    return path


def all_frames(source: FrameSource) -> list[np.ndarray]:
    with source:
        return [frame.image for frame in source]


def read_until_error(items: Iterable[T]) -> tuple[list[T], str]:
    """What comes before the StremnError, and its message."""
    seen: list[T] = []
    try:
        for item in items:
            seen.append(item)
    except StremnError as error:
        return seen, str(error)
    pytest.fail(f"no error after {len(seen)} items")


# ---------------------------------------------------------------- images


@pytest.mark.parametrize("suffix", ["png", "jpg", "bmp", "tiff", "webp"])
def test_folder_of_images_in_natural_order(tmp_path: Path, suffix: str) -> None:
    for index in range(12):
        Image.fromarray(picture(index)).save(tmp_path / f"shot {index}.{suffix}")
    (tmp_path / "notes.txt").write_text("not an image")
    (tmp_path / "._shot 1.png").write_bytes(b"left by a file manager")
    source = open_frames(tmp_path)
    frames = list(source)
    assert source.count == 12
    assert source.size == (48, 64)
    assert source.fps is None
    assert [frame.name for frame in frames] == [f"shot {i}" for i in range(12)]
    assert [frame.index for frame in frames] == list(range(12))
    for frame in frames:
        close = np.abs(frame.image.astype(int) - picture(frame.index)).mean()
        assert close < 6
        assert frame.image.dtype == np.uint8


def test_glob_chooses_files_and_start_leaves_frames_out(tmp_path: Path) -> None:
    for index in range(5):
        Image.fromarray(picture(index)).save(tmp_path / f"{index:03d}.png")
        Image.fromarray(picture(index)[:, :, 0]).save(tmp_path / f"{index:03d}_mask.png")
    source = open_frames(str(tmp_path / "???.png"), start=3)
    frames = list(source)
    assert [(frame.index, frame.name) for frame in frames] == [(3, "003"), (4, "004")]
    np.testing.assert_array_equal(frames[0].image, picture(3))


def test_single_image_is_a_video_of_one_frame(tmp_path: Path) -> None:
    Image.fromarray(picture(1)).save(tmp_path / "one.png")
    assert len(all_frames(open_frames(str(tmp_path / "one.png")))) == 1


def test_16_bit_images_keep_their_high_byte(tmp_path: Path) -> None:
    deep = (np.arange(48 * 64, dtype=np.uint16).reshape(48, 64)) * 21
    cv2.imwrite(str(tmp_path / "grey.png"), deep)
    cv2.imwrite(str(tmp_path / "color.tiff"), np.stack([deep, deep // 2, deep // 4], axis=-1))
    grey = read_image(tmp_path / "grey.png")
    np.testing.assert_array_equal(grey, np.repeat((deep >> 8)[..., None], 3, axis=2))
    color = read_image(tmp_path / "color.tiff").astype(int)
    np.testing.assert_allclose(color[..., 2], deep >> 8, atol=1)  # OpenCV wrote blue first
    np.testing.assert_allclose(color[..., 0], (deep // 4) >> 8, atol=1)


def test_exif_rotation_of_photographs_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned clockwise by 90 degrees
    Image.fromarray(picture(0)).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_image(tmp_path / "a.png"), np.rot90(picture(0), -1))


def test_grey_palette_and_transparent_images_become_rgb(tmp_path: Path) -> None:
    for mode in ("L", "P", "RGBA", "CMYK", "1"):
        suffix = "tiff" if mode == "CMYK" else "png"
        path = tmp_path / f"{mode}.{suffix}"
        Image.fromarray(picture(0)).convert(mode).save(path)
        assert read_image(path).shape == (48, 64, 3)


def test_folder_without_images_says_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("x")
    with pytest.raises(StremnError, match=r"holds no images \(found: readme.txt\)"):
        open_frames(tmp_path)


def test_two_images_of_one_name_are_refused(tmp_path: Path) -> None:
    Image.fromarray(picture(0)).save(tmp_path / "0.png")
    Image.fromarray(picture(0)).save(tmp_path / "0.jpg")
    with pytest.raises(StremnError, match="two images with the same name"):
        open_frames(tmp_path)


@pytest.mark.parametrize("damage", ["cut", "empty", "text"])
def test_unreadable_image_is_named_after_the_frames_before_it(tmp_path: Path, damage: str) -> None:
    for index in range(4):
        Image.fromarray(picture(index)).save(tmp_path / f"{index}.jpg")
    whole = (tmp_path / "2.jpg").read_bytes()
    content = {"cut": whole[: len(whole) // 2], "empty": b"", "text": b"hello " * 50}[damage]
    (tmp_path / "2.jpg").write_bytes(content)
    seen, message = read_until_error(open_frames(tmp_path))
    assert [frame.index for frame in seen] == [0, 1]
    assert "2.jpg cannot be read" in message


def test_frame_that_changes_size_names_both_sizes(tmp_path: Path) -> None:
    for index in range(3):
        Image.fromarray(picture(index, height=48 - 8 * (index == 2))).save(
            tmp_path / f"{index}.png"
        )
    seen, message = read_until_error(open_frames(tmp_path))
    assert [frame.index for frame in seen] == [0, 1]
    assert "changes size at frame 2: expected 64x48" in message
    assert "got 64x40" in message


def test_natural_order_of_mixed_names() -> None:
    names = ["b1", "a10", "a2", "10", "9", "A1", "frame_0002_x", "frame_0010_a"]
    assert sorted(names, key=natural_order) == [
        "9", "10", "A1", "a2", "a10", "b1", "frame_0002_x", "frame_0010_a",
    ]  # fmt: skip


# ---------------------------------------------------------------- wrong places


def test_missing_path_names_the_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match=r"no file or folder .*nope\.mp4\. Give"):
        open_frames(tmp_path / "nope.mp4")
    with pytest.raises(StremnError, match=r"there is no folder .*no either"):
        open_frames(str(tmp_path / "no" / "pe.mp4"))


def test_names_that_the_system_refuses_are_told() -> None:
    for name in ("a" * 5000, f"{'a' * 300}.mp4"):
        with pytest.raises(StremnError, match="cannot be opened: File name too long"):
            open_frames(name)
        with pytest.raises(StremnError, match="cannot be opened: File name too long"):
            open_masks(Path(name), (48, 64))
    with pytest.raises(StremnError, match="There is no file or folder ~nobody at all/clip"):
        open_frames("~nobody at all/clip.mp4")


def test_glob_that_matches_nothing(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match="No file matches"):
        open_frames(str(tmp_path / "*.jpg"))


def test_negative_start() -> None:
    with pytest.raises(StremnError, match="must be 0 or later, got -1"):
        open_frames(np.zeros((1, 4, 4, 3), np.uint8), start=-1)


@pytest.mark.parametrize("content", [b"", b"hello world " * 50])
def test_file_that_is_no_video(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    with pytest.raises(StremnError, match="cannot be opened as a video"):
        open_frames(path)


def test_sound_without_pictures(tmp_path: Path) -> None:
    path = tmp_path / "sound.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        samples = np.zeros((1, 800), np.int16)
        sound = av.AudioFrame.from_ndarray(samples, format="s16", layout="mono")
        sound.sample_rate = 8000
        for packet in stream.encode(sound):
            container.mux(packet)
    with pytest.raises(StremnError, match="holds no video stream"):
        open_frames(path)


# ---------------------------------------------------------------- video files


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi"])
def test_video_file_gives_all_frames_and_start_is_exact(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", 30)
    source = open_frames(path)
    assert source.fps == pytest.approx(25)
    assert source.size == (48, 64)
    assert source.count in (30, None)
    whole = all_frames(source)
    assert len(whole) == 30
    late = list(open_frames(str(path), start=17))
    assert [frame.index for frame in late] == list(range(17, 30))
    assert late[0].name == "00017"
    for frame in late:
        np.testing.assert_array_equal(frame.image, whole[frame.index])


def test_start_beyond_the_end_gives_nothing(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 5)
    assert all_frames(open_frames(path, start=5)) == []


def turn_header(path: Path, matrix: tuple[int, ...]) -> None:
    """Overwrite the display matrix in an MP4 track header (16.16 and 2.30 fixed point)."""
    content = bytearray(path.read_bytes())
    place = content.index(b"tkhd") + 4 + 4 + 5 * 4 + 8 + 4 * 2
    content[place : place + 36] = struct.pack(">9i", *matrix)
    path.write_bytes(bytes(content))


@pytest.mark.parametrize(
    ("matrix", "turns"),
    [
        ((0, 1 << 16, 0, -(1 << 16), 0, 0, 0, 0, 1 << 30), -1),  # a phone held upright
        ((-(1 << 16), 0, 0, 0, -(1 << 16), 0, 0, 0, 1 << 30), 2),
        ((0, -(1 << 16), 0, 1 << 16, 0, 0, 0, 0, 1 << 30), 1),
    ],
)
def test_rotation_in_the_header_is_applied(
    tmp_path: Path, matrix: tuple[int, ...], turns: int
) -> None:
    path = write_clip(tmp_path / "clip.mp4", 3)
    stored = all_frames(open_frames(path))
    turn_header(path, matrix)
    source = open_frames(path)
    assert source.size == ((48, 64) if turns == 2 else (64, 48))
    for turned, image in zip(source, stored, strict=True):
        np.testing.assert_array_equal(turned.image, np.rot90(image, turns))
        assert turned.image.flags.c_contiguous


ONE = 1 << 16


@pytest.mark.parametrize(
    ("matrix", "axes"),
    [
        ((-ONE, 0, 0, 0, ONE, 0, 0, 0, 1 << 30), "fliplr"),  # some front cameras
        ((ONE, 0, 0, 0, -ONE, 0, 0, 0, 1 << 30), "flipud"),
        ((0, ONE, 0, ONE, 0, 0, 0, 0, 1 << 30), "transposed"),
        ((0, -ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30), "other way"),
    ],
)
def test_a_mirrored_video_is_read_as_it_is_shown(
    tmp_path: Path, matrix: tuple[int, ...], axes: str
) -> None:
    path = write_clip(tmp_path / "clip.mp4", 2)
    stored = all_frames(open_frames(path))
    turn_header(path, matrix)
    for shown, image in zip(all_frames(open_frames(path)), stored, strict=True):
        expected = {
            "fliplr": image[:, ::-1],
            "flipud": image[::-1],
            "transposed": image.transpose(1, 0, 2),
            "other way": image[::-1, ::-1].transpose(1, 0, 2),
        }[axes]
        np.testing.assert_array_equal(shown, expected)


def test_a_frame_with_facts_that_pyav_does_not_know_is_turned_too(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    content = io.BytesIO()
    Image.fromarray(picture(3)).save(content, "jpeg", exif=exif, quality=95)
    (tmp_path / "camera.mjpeg").write_bytes(content.getvalue() * 2)
    with av.open(str(tmp_path / "camera.mjpeg")) as container:
        frame = next(container.decode(video=0))
        expected = np.rot90(frame.to_ndarray(format="rgb24"), frame.rotation // 90)
    first, _ = all_frames(open_frames(tmp_path / "camera.mjpeg"))
    np.testing.assert_array_equal(first, expected)


def test_pixels_are_turned_with_their_picture(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 2, aspect=Fraction(4, 3))
    assert open_frames(path).pixel_aspect == Fraction(4, 3)
    turn_header(path, (0, ONE, 0, -ONE, 0, 0, 0, 0, 1 << 30))
    assert open_frames(path).pixel_aspect == Fraction(3, 4)


def test_a_codec_that_is_not_known_is_told(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.mp4", 2)
    before, _, after = path.read_bytes().rpartition(b"avc1")
    path.write_bytes(before + b"xx-9" + after)
    with pytest.raises(StremnError, match="its codec is not known here, or its header is damaged"):
        open_frames(path)


def test_variable_frame_rate_gives_every_frame_once(tmp_path: Path) -> None:
    path = tmp_path / "clip.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.width, stream.height, stream.pix_fmt = 64, 48, "yuv420p"
        for index, tick in enumerate([0, 1, 5, 6, 20, 21, 22, 60]):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame.pts = tick
            for packet in stream.encode(frame):
                container.mux(packet)
        for packet in stream.encode():
            container.mux(packet)
    assert len(all_frames(open_frames(path))) == 8


@pytest.mark.parametrize(
    ("suffix", "options"), [("mp4", {"movflags": "faststart"}), ("mkv", {}), ("avi", {})]
)
def test_truncated_video_gives_its_frames_and_then_says_where_it_stopped(
    tmp_path: Path, suffix: str, options: dict[str, str]
) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", 150, options)
    whole = all_frames(open_frames(path))
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 6 // 10])
    seen, message = read_until_error(open_frames(path))
    assert 3 < len(seen) < 150
    assert f"is damaged after frame {len(seen) - 1:05d}" in message
    for got, expected in zip(seen, whole, strict=False):
        np.testing.assert_array_equal(got.image, expected)


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_a_video_whose_times_begin_later_is_whole(tmp_path: Path, suffix: str) -> None:
    path, late = write_clip(tmp_path / "clip.mp4", 60), tmp_path / f"late.{suffix}"
    with av.open(str(path)) as source, av.open(str(late), "w") as container:
        stream = container.add_stream_from_template(source.streams.video[0])
        for packet in source.demux(video=0):
            if packet.pts is not None and packet.dts is not None and packet.time_base is not None:
                shift = round(3 / packet.time_base)
                packet.pts, packet.dts, packet.stream = (
                    packet.pts + shift,
                    packet.dts + shift,
                    stream,
                )
                container.mux(packet)
    assert len(all_frames(open_frames(late))) == 60


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_damage_in_the_middle_loses_no_frame_before_it(tmp_path: Path, suffix: str) -> None:
    path = write_clip(tmp_path / f"clip.{suffix}", 60)
    whole = all_frames(open_frames(path))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 2000] = bytes(2000)
    path.write_bytes(bytes(content))
    seen, message = read_until_error(open_frames(path))
    assert f"The {len(seen)} frames before it are complete" in message
    assert len(seen) > 3
    for got, expected in zip(seen, whole, strict=False):
        np.testing.assert_array_equal(got.image, expected)


def test_url_that_does_not_answer() -> None:
    with pytest.raises(StremnError, match=r"stream http://127.0.0.1:9/x\.mp4 cannot be opened"):
        open_frames("http://127.0.0.1:9/x.mp4")


def test_url_is_read_as_a_stream(tmp_path: Path) -> None:
    import functools
    import http.server

    write_clip(tmp_path / "clip.mp4", 10, {"movflags": "faststart"})
    handler = functools.partial(_QuietHandler, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            address = f"http://127.0.0.1:{server.server_address[1]}/clip.mp4"
            assert len(all_frames(open_frames(address))) == 10
        finally:
            server.shutdown()
            thread.join()


def _quiet_handler() -> type:
    import http.server

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    return Quiet


_QuietHandler = _quiet_handler()


def test_a_stream_that_breaks_off_is_no_damaged_file(tmp_path: Path) -> None:
    import http.server

    content = write_clip(tmp_path / "clip.mkv", 100).read_bytes()

    class Broken(_QuietHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content[: len(content) // 2])

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Broken) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            source = open_frames(f"http://127.0.0.1:{server.server_address[1]}/clip.mkv")
            seen, message = read_until_error(source)
        finally:
            server.shutdown()
            thread.join()
    assert f"clip.mkv broke off after {len(seen)} frames: " in message
    assert message.endswith("Check the connection, and start again.")


# ---------------------------------------------------------------- camera


def test_camera_that_is_not_there() -> None:
    with pytest.raises(StremnError, match=r"Camera 97 cannot be opened\. Check that it is connect"):
        open_frames(97)
    for digits in ("97", "20241231235959"):
        message = rf"Camera {digits} cannot be opened \(there is no file or folder {digits} either"
        with pytest.raises(StremnError, match=message):
            open_frames(digits)


def test_a_path_called_by_a_number_comes_before_the_camera(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clip = str(write_clip(tmp_path / "clip.avi", 6))
    opened: list[int] = []

    def camera(index: int, play: Any = cv2.VideoCapture) -> cv2.VideoCapture:
        opened.append(index)
        return play(clip)

    monkeypatch.setattr(cv2, "VideoCapture", camera)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with open_frames("0") as source:
        assert source.label == "Camera 0"
    Path("0").mkdir()
    Image.fromarray(picture(0)).save("0/00000.png")
    Path(clip).rename("1")
    clip = str(Path("1").absolute())
    assert len(all_frames(open_frames("0"))) == 1
    assert len(all_frames(open_frames("1"))) == 6
    assert opened == [0]
    with open_frames(0) as source:
        assert source.label == "Camera 0"
    assert opened == [0, 0]
    with pytest.raises(StremnError, match="There is no file or folder 2"):
        open_frames(Path("2"))


def test_capture_gives_rgb_and_says_when_it_stops(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "clip.avi", 6)
    source = _from_capture(cv2.VideoCapture(str(path)), "Camera 0", start=0)
    assert source.count is None
    assert source.fps == pytest.approx(25)
    seen, message = read_until_error(source)
    assert "Camera 0 stopped giving frames after 6 frames" in message
    expected = all_frames(open_frames(path))
    assert len(seen) == 6
    assert np.abs(seen[3].image.astype(int) - expected[3]).mean() < 3


def test_the_times_of_a_camera_begin_with_its_first_frame(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A camera takes a while to wake up."""
    monkeypatch.setattr("stremn.media.video.monotonic", itertools.count(50.0).__next__)
    path = write_clip(tmp_path / "clip.avi", 4)
    source = _from_capture(cv2.VideoCapture(str(path)), "Camera 0", start=0)
    seen, _ = read_until_error(source)
    assert [frame.time for frame in seen] == [0, 1, 2, 3]


# ---------------------------------------------------------------- arrays


def test_an_iterator_loses_no_frame_to_moments() -> None:
    def images() -> Iterator[np.ndarray]:
        return (picture(index) for index in range(6))

    frames = list(open_frames(images(), start="2", end="4"))
    assert [frame.index for frame in frames] == [2, 3]
    for frame in frames:
        np.testing.assert_array_equal(frame.image, picture(frame.index))
    with pytest.raises(StremnError, match="has no frame rate, so 2s is at no frame of it"):
        open_frames(images(), start="2s")


def test_arrays_lists_and_generators() -> None:
    stack = np.stack([picture(i) for i in range(4)])
    for source in (stack, list(stack), (image for image in stack)):
        frames = list(open_frames(source, start=1))
        assert [frame.index for frame in frames] == [1, 2, 3]
        np.testing.assert_array_equal(frames[-1].image, picture(3))
    assert open_frames(stack).count == 4
    assert open_frames(iter(stack)).count is None
    pil = open_frames([Image.fromarray(picture(0)[:, :, 0])])
    assert pil.size == (48, 64)


def test_arrays_of_wrong_shape_or_type() -> None:
    with pytest.raises(StremnError, match=r"shape \(frames, height, width, 3\), got \(4, 5, 3\)"):
        open_frames(np.zeros((4, 5, 3), np.uint8))
    with pytest.raises(StremnError, match=r"Frame 0 must be .* got shape \(4, 5\)"):
        open_frames([np.zeros((4, 5), np.uint8)])
    with pytest.raises(StremnError, match="type float32"):
        open_frames(np.zeros((1, 4, 5, 3), np.float32))
    with pytest.raises(StremnError, match="holds no frame"):
        open_frames([])


def test_closing_early_closes_the_generator_behind() -> None:
    closed = []

    def images() -> Iterator[np.ndarray]:
        try:
            while True:
                yield picture(0)
        finally:
            closed.append(True)

    source = open_frames(images())
    next(iter(source))
    source.close()
    del source
    assert closed == [True]


# ---------------------------------------------------------------- threads


def test_read_ahead_keeps_order_and_stays_within_its_depth() -> None:
    made: list[int] = []

    def items() -> Iterator[int]:
        for index in range(40):
            made.append(index)
            yield index

    with ReadAhead(items(), depth=3) as ahead:
        seen = []
        for item in ahead:
            time.sleep(0.002)
            # In the queue 3, in the thread's hands 1, with us 1.
            assert len(made) <= len(seen) + 5
            seen.append(item)
    assert seen == list(range(40))


def test_read_ahead_raises_after_the_items_before_the_error() -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        raise StremnError("the third is damaged")

    with ReadAhead(items(), depth=8) as ahead:
        seen, message = read_until_error(ahead)
    assert seen == [0, 1, 2]
    assert message == "the third is damaged"


def test_read_ahead_left_early_ends_its_thread() -> None:
    def endless() -> Iterator[int]:
        while True:
            yield 1

    before = threading.active_count()
    with ReadAhead(endless(), depth=2) as ahead:
        next(iter(ahead))
    assert threading.active_count() == before
    assert list(ahead) == []


def test_write_behind_writes_in_order_and_flushes() -> None:
    written: list[int] = []

    def slow(item: int) -> None:
        time.sleep(0.001)
        written.append(item)

    with WriteBehind(slow, depth=2) as behind:
        for item in range(10):
            behind.put(item)
            assert item - len(written) <= 4
        behind.flush()
        assert written == list(range(10))
        behind.put(10)
    assert written == list(range(11))


def test_write_behind_raises_in_the_main_thread_and_writes_nothing_after() -> None:
    written: list[int] = []

    def write(item: int) -> None:
        if item == 2:
            raise StremnError("the disk is full")
        written.append(item)

    before = threading.active_count()

    def put_all() -> None:
        with WriteBehind(write, 2) as behind:
            for item in range(100):
                behind.put(item)

    with pytest.raises(StremnError, match="the disk is full"):
        put_all()
    assert written == [0, 1]
    assert threading.active_count() == before


def test_write_behind_reports_an_error_of_the_last_item_on_close() -> None:
    def write(item: int) -> None:
        raise StremnError(f"cannot write {item}")

    behind = WriteBehind(write)
    behind.put(7)
    with pytest.raises(StremnError, match="cannot write 7"):
        behind.close()
    behind.close()


def test_write_behind_does_not_hide_the_error_under_way(caplog: pytest.LogCaptureFixture) -> None:
    def write(item: int) -> None:
        raise StremnError("late")

    def fail() -> None:
        with WriteBehind(write) as behind:
            behind.put(1)
            raise KeyError("first")

    with pytest.raises(KeyError, match="first"):
        fail()
    assert "late" in caplog.text


@pytest.mark.parametrize("kind", [ReadAhead, WriteBehind])
def test_depth_must_be_positive(kind: type) -> None:
    with pytest.raises(StremnError, match="depth must be 1 or more, got 0"):
        kind([], 0) if kind is ReadAhead else kind(print, 0)


@pytest.mark.parametrize(
    "pixels",
    [
        np.full((4, 6), 9, np.uint8),
        np.full((4, 6, 4), 9, np.uint8),
        np.full((4, 6, 3), 9 / 255),
    ],
)
def test_the_message_about_an_array_that_is_no_rgb_image_says_how_to_make_one(
    pixels: np.ndarray,
) -> None:
    with pytest.raises(StremnError, match=r"must be an RGB image .*: \S.*\.$") as told:
        as_picture(pixels)
    code = str(told.value).rpartition(": ")[2].removesuffix(".")
    made = eval(code, {"np": np, "frame": pixels})
    np.testing.assert_array_equal(as_picture(made), np.full((4, 6, 3), 9, np.uint8))


def test_the_message_about_an_array_that_is_no_image_ends_with_what_it_is() -> None:
    with pytest.raises(StremnError, match=r"got shape \(4,\) and type bool\.$"):
        as_picture(np.zeros(4, bool))
