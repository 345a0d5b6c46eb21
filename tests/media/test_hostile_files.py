"""Files made to read other files, to fill the memory, or to run something, end in a sentence."""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stremn.data.readers.layouts import read_davis
from stremn.errors import StremnError
from stremn.evaluation.segmentation.submission import check_submission, write_submission
from stremn.media.encoding import write_video
from stremn.media.mask_check import diagnose
from stremn.media.masks import read_mask
from stremn.media.pictures import MOST_PIXELS
from stremn.media.video import open_frames, read_image
from tiny_vos import davis, names_of, square_labels, write_labels


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    write_video(tmp_path / "clip.mp4", [np.full((64, 64, 3), 9 * i, np.uint8) for i in range(5)], 5)
    assert len(list(open_frames(tmp_path / "clip.mp4"))) == 5
    return tmp_path / "clip.mp4"


def other_files(clip: Path) -> dict[str, str]:
    """What FFmpeg would follow to another file."""
    playlist = f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n%s{clip}\n#EXT-X-ENDLIST\n"
    return {
        "hls": playlist % "file://",
        "hls path": playlist % "",
        "concat": f"ffconcat version 1.0\nfile '{clip}'\n",
        "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        "dash": '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static" '
        'profiles="urn:mpeg:dash:profile:isoff-on-demand:2011"><Period><AdaptationSet '
        f'mimeType="video/mp4"><Representation id="0" bandwidth="1"><BaseURL>{clip}</BaseURL>'
        "</Representation></AdaptationSet></Period></MPD>",
    }


@pytest.mark.parametrize("kind", ["hls", "hls path", "concat", "sdp", "dash"])
@pytest.mark.parametrize("suffix", ["m3u8", "mp4", "sdp", "txt", "mpd"])
def test_playlists_lead_nowhere(clip: Path, tmp_path: Path, kind: str, suffix: str) -> None:
    path = tmp_path / f"list.{suffix}"
    path.write_text(other_files(clip)[kind])
    with pytest.raises(StremnError, match="cannot be opened as a video"):
        open_frames(path)


@pytest.mark.parametrize(
    "address",
    [
        "file://{}", "concat:{}|{}", "subfile,,start,0,end,0,,:{}", "async:{}", "cache:{}",
        "crypto:{}", "data:video/mp4;base64,AAAA", "pipe:0", "fd:0", "unix:{}", "ftp://h{}",
        "gopher://h{}", "smb://h{}", "hls+file://{}", "hls+http://h{}", "concat://{}", "tcp://h:1",
        "udp://127.0.0.1:1", "rtmp://127.0.0.1/x", "srt://127.0.0.1:1", "HTTPX://h{}", "://{}",
    ],
)  # fmt: skip
def test_protocols_of_other_kinds_are_not_spoken(clip: Path, address: str) -> None:
    for text in (address.replace("{}", str(clip)), address.replace("{}", "clip.mp4")):
        with pytest.raises(StremnError, match=r"is of a kind that is not opened|There is no file"):
            open_frames(text)


def test_names_that_look_like_protocols_are_names(clip: Path, tmp_path: Path) -> None:
    for name in ("concat:a.mp4", "a:b.mp4", "data:x.mp4", "file:x.mp4"):
        (tmp_path / name).write_bytes(clip.read_bytes())
        assert len(list(open_frames(tmp_path / name))) == 5


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif"])
def test_programs_are_not_started_for_pictures(tmp_path: Path, suffix: str) -> None:
    """PostScript is a program; Pillow hands it to Ghostscript whatever the file is called."""
    path = tmp_path / f"x.{suffix}"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n")
    with pytest.raises(StremnError, match="cannot be read"):
        read_image(path)
    with pytest.raises(StremnError, match=r"is not an image|cannot be read"):
        read_mask(path)


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(width: int, height: int) -> bytes:
    """A small PNG that claims a size, and holds a few rows of zeros."""
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    rows = zlib.compress(bytes(10_000))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


@pytest.mark.parametrize("size", [(12_000, 12_000), (MOST_PIXELS, 2), (2**31 - 1, 2**31 - 1)])
def test_pictures_of_claimed_size_are_refused_before_room_is_made(
    tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "bomb.png"
    path.write_bytes(png(*size))

    def never(*_: object) -> None:
        raise AssertionError("decoded")

    monkeypatch.setattr(Image.Image, "load", never)
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", never)
    for read in (read_image, read_mask, diagnose):
        with pytest.raises(StremnError, match=r"more than the 67 million|exceeds limit"):
            read(path)  # type: ignore[operator]


def test_masks_much_larger_than_their_frame_are_not_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "large.png"
    path.write_bytes(png(4000, 4000))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    with pytest.raises(StremnError, match="it is 4000x4000 pixels, more than"):
        read_mask(path, (480, 854))


def test_images_given_as_objects_have_a_limit_too() -> None:
    class Huge(Image.Image):
        size = (20_000, 20_000)

    with pytest.raises(StremnError, match="it is 20000x20000 pixels"):
        read_mask(Huge())


@pytest.mark.parametrize("size", [(65_535, 65_535), (16_000, 16_000)])
def test_videos_of_claimed_size_are_refused(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "bomb.ivf"
    header = struct.pack("<4sHH4sHHIIIII", b"DKIF", 0, 32, b"VP80", *size, 30, 1, 9, 0, 9)
    path.write_bytes(header[:32] + struct.pack("<IQ", 64, 0) + bytes(64))
    with pytest.raises(StremnError, match=r"more than the 67 million|holds no frame"):
        open_frames(path)


@pytest.mark.parametrize("kept", [1, 8, 40, 200, 600, 900])
def test_videos_cut_off_anywhere_end_in_a_sentence(clip: Path, tmp_path: Path, kept: int) -> None:
    path = tmp_path / "cut.mp4"
    path.write_bytes(clip.read_bytes()[:kept])
    with pytest.raises(StremnError):
        list(open_frames(path))


# ---------------------------------------------------------------- zips


@pytest.fixture
def zipped(tmp_path: Path):  # type: ignore[no-untyped-def]
    """A data set of two sequences, and a zip of its label maps."""
    davis(tmp_path / "davis", {"a": [1, 2], "b": [1]}, split="test-dev", count=3)
    data = read_davis(tmp_path / "davis", "test-dev")
    predictions = tmp_path / "predictions"
    for name, ids in {"a": [1, 2], "b": [1]}.items():
        for index, frame in enumerate(names_of(3)):
            write_labels(predictions / name / f"{frame}.png", square_labels(index, ids))
    write_submission(data, predictions, tmp_path / "good.zip", "davis")
    return data, tmp_path / "good.zip"


def rewritten(path: Path, change) -> Path:  # type: ignore[no-untyped-def]
    """A copy of a zip in which `change(name, content)` stands for each content."""
    other = path.with_name("other.zip")
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(other, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, change(name, old.read(name)))
    return other


def test_zips_that_unpack_to_too_much_are_refused_before_they_do(zipped) -> None:  # type: ignore[no-untyped-def]
    data, path = zipped
    large = rewritten(path, lambda name, content: content + bytes(10**7))
    with pytest.raises(StremnError, match=r"unpacks to 1\d+ bytes, more than any label map"):
        check_submission(data, large, "davis")


def test_entries_that_are_there_twice_are_told(zipped) -> None:  # type: ignore[no-untyped-def]
    data, path = zipped
    with pytest.warns(UserWarning, match="Duplicate name"), zipfile.ZipFile(path, "a") as archive:
        archive.writestr(archive.namelist()[0], b"x")
    with pytest.raises(StremnError, match="more than once"):
        check_submission(data, path, "davis")


def test_damaged_zips_end_in_a_sentence(zipped, tmp_path: Path) -> None:  # type: ignore[no-untyped-def]
    """Every changed byte gives a result or a sentence: encrypted, other methods, wrong sizes."""
    data, path = zipped
    content = path.read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(150):
        damaged = bytearray(content)
        damaged[rng.integers(len(content))] ^= 1 << rng.integers(8)
        (tmp_path / "damaged.zip").write_bytes(damaged)
        try:
            check_submission(data, tmp_path / "damaged.zip", "davis")
        except StremnError:
            refused += 1
    assert refused > 100
    for kept in range(0, len(content), 97):
        (tmp_path / "cut.zip").write_bytes(content[:kept])
        with pytest.raises(StremnError):
            check_submission(data, tmp_path / "cut.zip", "davis")
