"""Every format, read back by a program that others read it with; and the same when resumed."""

import json
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
import supervision as sv
import yaml
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from stremn.errors import MissingExtraError, StremnError
from stremn.media.formats.categories import Categories
from stremn.media.formats.choosing import FORMATS, choose_formats
from stremn.media.formats.detections import detections
from stremn.media.formats.exr import find_spec
from stremn.media.formats.mattes import soft_edge
from stremn.media.formats.outlines import one_outline, outlines
from stremn.media.formats.pictures import VideoWriter
from stremn.media.formats.reformat import write_formats
from stremn.media.formats.rows import Rows, RowsWriter
from stremn.media.formats.single_objects import MaskVideosWriter
from stremn.media.frame_results import FrameResult
from stremn.media.frames import Frame
from stremn.media.results import ResultWriter
from stremn.media.video import open_frames

pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")
HEIGHT, WIDTH = 62, 84
COUNT = 11
LATE = 3  # the frame in which object 5 enters
NAMES = "2=cat,5=dog"


def shape_at(index: int, soft: float = 0.0) -> np.ndarray:
    """Object 2: a ring in two parts that moves; without `soft` its mask, else its probability."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    radius = np.hypot(x - 24 - index, y - 30)
    inside = np.minimum(14 - radius, radius - 5)
    inside = np.maximum(inside, 4 - np.hypot(x - 70, y - 50))
    return np.clip(inside / soft + 0.5, 0, 1) if soft else inside > 0


def labels_at(index: int) -> np.ndarray:
    labels = shape_at(index).astype(np.uint8) * np.uint8(2)
    if LATE <= index != COUNT - 2:  # hidden in the last frame but one
        labels[4:14, 60 : 70 + index] = 5
    return labels


def result_at(index: int) -> FrameResult:
    image = np.random.default_rng(3).integers(40, 200, (8, 11, 3)).astype(np.uint8)
    image = np.roll(cv2.resize(image, (WIDTH, HEIGHT)), index, axis=1)
    image[::2, ::2] += 30
    frame = Frame(index, f"shot {index}", image, file_name=f"shot {index}.jpg")
    labels = labels_at(index)
    soft = [shape_at(index, soft=4.0), (labels == 5) * 1.0]
    ids = (2, 5) if index >= LATE else (2,)
    layers = np.stack(soft[: len(ids)]).astype(np.float32)
    return FrameResult(frame, labels, {"bytes": 0}, ids, layers)


def writer(out: Path, *names: str, **changes: Any) -> ResultWriter:
    formats = choose_formats(names, Categories.parse(NAMES))
    return ResultWriter(out, fps=25, checkpoint_every=4, formats=formats, **changes)


def go(results: ResultWriter, start: int, count: int) -> None:
    for index in range(start, count):
        results.write(result_at(index))
        if results.checkpoint_due(index):
            results.checkpoint(lambda path: path.write_bytes(b"state"))


def run(out: Path, *names: str, **changes: Any) -> Path:
    with writer(out, *names, **changes) as results:
        go(results, 0, COUNT)
        results.finish()
    return out


def masks_of(item: int) -> list[np.ndarray]:
    return [labels_at(index) == item for index in range(COUNT)]


# ---------------------------------------------------------------- files for the whole video


@pytest.mark.parametrize(("name", "file"), [("coco", "objects"), ("coco-polygons", "polygons")])
def test_coco_is_read_by_pycocotools(tmp_path: Path, name: str, file: str) -> None:
    coco = COCO(run(tmp_path, name) / f"{file}.json")
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == [
        f"shot {index}.jpg" for index in range(COUNT)
    ]
    assert coco.loadCats(coco.getCatIds()) == [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}]
    seen = 0
    for annotation in coco.loadAnns(coco.getAnnIds()):
        mask = masks_of(annotation["track_id"])[annotation["image_id"]]
        np.testing.assert_array_equal(coco.annToMask(annotation), mask)
        assert annotation["area"] == mask.sum()
        assert annotation["category_id"] == {2: 1, 5: 2}[annotation["track_id"]]
        seen += 1
    assert seen == sum(mask.any() for item in (2, 5) for mask in masks_of(item))


def test_youtube_vis_has_every_object_in_every_frame(tmp_path: Path) -> None:
    content = json.loads((run(tmp_path, "youtube-vis") / "youtube-vis.json").read_text())
    [video] = content["videos"]
    assert (video["height"], video["width"], video["length"]) == (HEIGHT, WIDTH, COUNT)
    assert video["file_names"][10] == "shot 10.jpg"
    assert [item["category_id"] for item in content["annotations"]] == [1, 2]
    for annotation in content["annotations"]:
        for index, mask in enumerate(masks_of(annotation["id"])):
            coded = annotation["segmentations"][index]
            assert (coded is None) == (not mask.any())
            if coded is not None:
                np.testing.assert_array_equal(coco_masks.decode(coded), mask)
                assert coco_masks.toBbox(coded).tolist() == annotation["bboxes"][index]
                assert coco_masks.area(coded) == annotation["areas"][index]


def test_mots_lines(tmp_path: Path) -> None:
    lines = (run(tmp_path, "mots") / "mots.txt").read_text().splitlines()
    assert len(lines) == sum(mask.any() for item in (2, 5) for mask in masks_of(item))
    for line in lines:
        index, number, category, height, width, counts = line.split(" ")
        assert int(number) // 1000 == int(category)
        coded = {"size": [int(height), int(width)], "counts": counts}
        expected = masks_of(int(number) % 1000)[int(index)]
        np.testing.assert_array_equal(coco_masks.decode(coded), expected)


def filled(points: np.ndarray) -> np.ndarray:
    runs = coco_masks.frPyObjects([points.ravel().tolist()], HEIGHT, WIDTH)
    return coco_masks.decode(runs)[..., 0].astype(bool)


def test_cvat_tracks(tmp_path: Path) -> None:
    root = ElementTree.parse(run(tmp_path, "cvat") / "cvat.xml").getroot()
    assert root.findtext("version") == "1.1"
    assert root.findtext("meta/task/size") == str(COUNT)
    assert [label.findtext("name") for label in root.iter("label")] == ["cat", "dog"]
    for track, item in zip(root.iter("track"), (2, 5), strict=True):
        assert track.get("label") == {2: "cat", 5: "dog"}[item]
        shown = {int(polygon.attrib["frame"]): polygon for polygon in track}
        assert list(shown) == list(range(0 if item == 2 else LATE, COUNT))
        for index, polygon in shown.items():
            mask = masks_of(item)[index]
            assert polygon.get("outside") == str(int(not mask.any()))
            if mask.any():
                pairs = [pair.split(",") for pair in polygon.attrib["points"].split(";")]
                np.testing.assert_array_equal(filled(np.array(pairs, float)), mask)


def test_frames_keep_their_numbers_where_a_run_begins_later(tmp_path: Path) -> None:
    with writer(tmp_path, "mots", "cvat", first=2) as results:
        go(results, 2, COUNT)
        results.finish()
    lines = (tmp_path / "mots.txt").read_text().splitlines()
    assert {int(line.split(" ")[0]) for line in lines} == set(range(2, COUNT))
    root = ElementTree.parse(tmp_path / "cvat.xml").getroot()
    task = [root.findtext(f"meta/task/{name}") for name in ("size", "start_frame", "stop_frame")]
    assert task == [str(COUNT - 2), "2", str(COUNT - 1)]
    shown = [int(polygon.attrib["frame"]) for polygon in next(root.iter("track"))]
    assert shown == list(range(2, COUNT))


def test_rows_of_earlier_versions_are_numbered_in_order(tmp_path: Path) -> None:
    (tmp_path / "rows.json").write_text('[\n{"file": "a"},\n{"file": "b"}\n]\n')
    assert [row["frame"] for row in Rows(tmp_path / "rows.json")] == [0, 1]


def test_yolo_is_read_by_supervision(tmp_path: Path) -> None:
    folder = run(tmp_path, "yolo") / "yolo"
    (folder / "images").mkdir()
    for index in range(COUNT):
        Image.fromarray(result_at(index).frame.image).save(folder / "images" / f"shot {index}.jpg")
    parts = (str(folder / part) for part in ("images", "labels", "data.yaml"))
    found = sv.DetectionDataset.from_yolo(*parts, force_masks=True)
    assert found.classes == ["cat", "dog"]
    assert len(found) == COUNT
    for path, _, seen in found:
        labels = labels_at(int(Path(path).stem.split()[1]))
        assert seen.class_id.tolist() == [c for c, i in enumerate((2, 5)) if i in labels]
        for mask, number in zip(seen.mask, seen.class_id, strict=True):
            # Where a part or a hole is joined, OpenCV draws the line: here over 32 pixels.
            assert (mask != (labels == (2, 5)[number])).sum() <= (32 if number == 0 else 0)


def test_yolo_names_may_have_any_letters(tmp_path: Path) -> None:
    name = 'caf\u00e9 "\u20ac\\ \U0001f431'
    formats = choose_formats(["yolo"], Categories({2: name}))
    with ResultWriter(tmp_path, fps=25, formats=formats) as results:
        go(results, 0, 1)
    assert yaml.safe_load((tmp_path / "yolo" / "data.yaml").read_bytes())["names"] == {0: name}


# ---------------------------------------------------------------- pictures


def test_a_folder_of_masks_an_object(tmp_path: Path) -> None:
    out = run(tmp_path, "mask-folders") / "mask-folders"
    for item, first in ((2, 0), (5, LATE)):
        files = sorted((out / str(item)).iterdir())
        assert len(files) == COUNT - first
        for path in files:
            mask = cv2.imread(str(path), cv2.IMREAD_UNCHANGED)
            expected = masks_of(item)[int(path.stem.split()[1])]
            np.testing.assert_array_equal(mask, expected * np.uint8(255))


def frames_of(path: Path) -> list[np.ndarray]:
    """Frames as RGB, or RGBA where the video has transparency."""
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        assert stream.average_rate == 25
        decoder: Any = stream.codec_context
        if "ALPHA_MODE" in stream.metadata:  # FFmpeg's own decoder passes over it
            decoder = av.CodecContext.create("libvpx-vp9", "r")
        frames = [f for packet in container.demux(stream) for f in decoder.decode(packet)]
    if "a" not in frames[0].format.name:
        return [frame.to_ndarray(format="rgb24") for frame in frames]
    return [np.dstack([rgb_of(frame), alpha_of(frame)]) for frame in frames]


def rgb_of(frame: av.VideoFrame) -> np.ndarray:
    return frame.reformat(format="rgb24", src_colorspace="ITU709").to_ndarray()


def alpha_of(frame: av.VideoFrame) -> np.ndarray:
    """The last plane as it is: FFmpeg's conversion to RGBA goes wrong at some widths."""
    plane, deep = frame.planes[3], frame.format.components[3].bits > 8
    rows = np.frombuffer(plane, np.uint16 if deep else np.uint8).reshape(plane.height, -1)
    return (rows[:, : plane.width] >> (2 if deep else 0)).astype(np.uint8)


def test_a_video_of_masks_an_object(tmp_path: Path) -> None:
    out = run(tmp_path, "mask-videos") / "mask-videos"
    assert sorted(path.name for path in out.iterdir()) == ["2.mp4", "5.mp4"]
    for item in (2, 5):
        frames = frames_of(out / f"{item}.mp4")
        assert len(frames) == COUNT
        for frame, mask in zip(frames, masks_of(item), strict=True):
            assert ((frame[..., 0] > 127) != mask).mean() < 0.002


def test_cut_outs_have_soft_edges(tmp_path: Path) -> None:
    out = run(tmp_path, "cut-out", "cut-out-webm", "cut-out-prores")
    webm, prores = frames_of(out / "cut-out-webm.webm"), frames_of(out / "cut-out-prores.mov")
    assert len(webm) == len(prores) == COUNT
    for index in range(COUNT):
        result = result_at(index)
        still = np.array(Image.open(out / "cut-out" / f"shot {index}.png"))
        alpha = still[..., 3]
        edge = cv2.morphologyEx(labels_at(index), cv2.MORPH_GRADIENT, np.ones((3, 3))) > 0
        assert alpha[(labels_at(index) > 0) & ~edge].min() > 200
        assert alpha[cv2.dilate(labels_at(index), np.ones((7, 7))) == 0].max() == 0
        assert len(np.unique(alpha[edge])) > 10  # soft
        np.testing.assert_array_equal(still[alpha > 0][:, :3], result.frame.image[alpha > 0])
        for video, tolerance in ((webm, 8), (prores, 2)):
            difference = np.abs(video[index].astype(int) - still)
            assert difference[..., 3].mean() < tolerance / 2
            assert difference[alpha > 250][:, :3].mean() < tolerance


def test_backgrounds(tmp_path: Path) -> None:
    out = run(tmp_path, "green-screen", "black-background", "blurred-background")
    videos = ("green-screen", "black-background", "blurred-background")
    green, black, blurred = (frames_of(out / f"{name}.mp4") for name in videos)
    for index in range(COUNT):
        image = result_at(index).frame.image
        inside = cv2.erode((labels_at(index) > 0).astype(np.uint8), np.ones((5, 5))) > 0
        away = cv2.dilate(labels_at(index), np.ones((9, 9))) == 0
        for video in (green, black, blurred):
            shown = video[index].astype(int)
            assert np.abs(shown - image)[inside].mean() < 8
        assert np.abs(green[index][away].astype(int) - (0, 177, 64)).mean() < 4
        assert black[index][away].mean() < 3
        sharp, soft = (
            np.abs(np.diff(x.astype(int), axis=1))[away[:, 1:]].mean()
            for x in (image, blurred[index])
        )
        assert soft < 0.75 * sharp


def test_exr_has_a_matte_an_object(tmp_path: Path) -> None:
    openexr = pytest.importorskip("OpenEXR")
    out = run(tmp_path, "exr")
    for index in (0, 7):
        channels = openexr.File(str(out / "exr" / f"shot {index}.exr")).channels()
        ids = result_at(index).ids
        assert {name for name in channels if name.startswith("object")} == {
            f"object{item}.A" if f"object{item}.A" in channels else f"object{item}" for item in ids
        }
        colors = channels["RGBA"].pixels if "RGBA" in channels else channels["RGB"].pixels
        image = result_at(index).frame.image / 255.0
        linear = np.where(image <= 0.04045, image / 12.92, ((image + 0.055) / 1.055) ** 2.4)
        np.testing.assert_allclose(colors[..., :3].astype(float), linear, atol=1e-3)
        alpha = colors[..., 3] if colors.shape[-1] == 4 else channels["A"].pixels
        assert ((alpha > 0.5) != (labels_at(index) > 0)).mean() < 0.01


# ---------------------------------------------------------------- interruption


def test_formats_of_a_killed_run_are_the_same_when_it_is_resumed(tmp_path: Path) -> None:
    run(tmp_path / "whole", *FORMATS)
    broken = writer(tmp_path / "broken", *FORMATS)
    go(broken, 0, 7)  # and no `close`: the checkpoint is at frame 4
    broken._lock.release()
    broken._memory.close()
    for other in broken._others._writers:
        if isinstance(other, RowsWriter):
            other._rows.close()
        if isinstance(other, VideoWriter | MaskVideosWriter):
            other._times.close()
    with writer(tmp_path / "broken", *FORMATS, existing="resume") as resumed:
        assert resumed.next_frame == 4
        go(resumed, 4, COUNT)
        resumed.finish()
    assert contents(tmp_path / "broken").keys() == contents(tmp_path / "whole").keys()
    whole, broken_files = contents(tmp_path / "whole"), contents(tmp_path / "broken")
    assert [name for name in whole if whole[name] != broken_files[name]] == []


def test_formats_of_an_interrupted_run_are_readable_and_can_go_on(tmp_path: Path) -> None:
    def stop() -> None:
        with writer(tmp_path / "out", *FORMATS) as results:
            go(results, 0, 6)
            results.checkpoint(lambda path: path.write_bytes(b"state"))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        stop()
    assert len(COCO(tmp_path / "out" / "objects.json").getImgIds()) == 6
    assert len(frames_of(tmp_path / "out" / "cut-out-webm.webm")) == 6
    with writer(tmp_path / "out", *FORMATS, existing="resume") as results:
        go(results, 6, COUNT)
        results.finish()
    whole = run(tmp_path / "whole", *FORMATS)
    for name, content in contents(whole).items():
        path = tmp_path / "out" / name
        if path.suffix in (".mp4", ".webm", ".mov"):  # only the key frames differ
            assert len(frames_of(path)) == COUNT
        else:
            assert path.read_bytes() == content, name


def contents(out: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(out)): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file()
    }


def test_replacing_a_run_removes_its_formats_and_nothing_else(tmp_path: Path) -> None:
    run(tmp_path, "yolo", "mask-folders", "cut-out-webm")
    (tmp_path / "cut-out").mkdir()
    kept = [tmp_path / "cut-out" / "shot 0.png", tmp_path / "yolo" / "mine.txt"]
    for path in kept:
        path.write_text("mine")
    with writer(tmp_path, "coco", existing="replace") as results:
        go(results, 0, 1)
        results.finish()
    names = [name for name in contents(tmp_path) if not name.startswith(".resume")]
    expected = ["masks/shot 0.png", "memory.json", "objects.csv", "objects.json", "overlay.mp4"]
    assert sorted(names) == sorted([*expected, *(str(path.relative_to(tmp_path)) for path in kept)])
    assert not (tmp_path / "mask-folders").exists()


# ---------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["coco", "yollo"], r"There is no format 'yollo'\. The formats are coco, coco-polygons, "),
    ],
)
def test_unknown_formats(names: list[str], message: str) -> None:
    with pytest.raises(StremnError, match=message):
        choose_formats(names)


def test_a_missing_package_is_told_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(name: str) -> object:
        return None if name == "OpenEXR" else find_spec(name)

    monkeypatch.setattr("stremn.media.formats.exr.find_spec", without)
    with pytest.raises(MissingExtraError, match=r'pip install "stremn\[exr\]"'):
        choose_formats(["exr"])


@pytest.mark.parametrize(
    ("name", "ids", "size", "message"),
    [
        ("mots", {1, 1000}, (60, 80), "ids up to 999, and there is an object 1000"),
        ("mask-videos", set(range(1, 34)), (60, 80), "up to 32 objects, and there are 33"),
        ("cut-out-webm", {1}, (60, 20000), "up to 16384 pixels a side, and these are 20000x60"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(
    name: str, ids: set[int], size: tuple[int, int], message: str
) -> None:
    [chosen] = choose_formats([name])
    with pytest.raises(StremnError, match=message):
        chosen.check(ids, size)


def test_an_object_that_does_not_fit_ends_the_run_before_its_frame(tmp_path: Path) -> None:
    with writer(tmp_path, "mots") as results:
        go(results, 0, 2)
        late = result_at(2)
        wide = late.labels.astype(np.uint16) * 600
        with pytest.raises(StremnError, match="there is an object 1200"):
            results.write(FrameResult(late.frame, wide, {}, (1200,), late.probabilities))
    assert len(json.loads((tmp_path / "memory.json").read_text())) == 2
    assert len((tmp_path / "mots.txt").read_text().splitlines()) == 2


def test_a_format_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "yolo").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StremnError, match="yolo is a link, and results are not written"):
        writer(tmp_path / "out", "yolo")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("cat", "as \"1=cat,2=dog\" .*, got 'cat'"),
        ("0=cat", "got '0=cat'"),
        ("1=", "got '1='"),
        ("1=cat,1=dog", "Object 1 is named twice"),
    ],
)
def test_names_that_are_none(text: str, message: str) -> None:
    with pytest.raises(StremnError, match=message):
        Categories.parse(text)


def test_objects_without_a_name_are_categories_of_their_own() -> None:
    categories = Categories.parse("3=cat, 7=dog,9=cat")
    assert [categories.number(item) for item in (3, 7, 9, 1, 2)] == [1, 2, 1, 3, 4]
    assert categories.of([2]) == {1: "cat", 2: "dog", 4: "object 2"}
    assert Categories().of([4, 2]) == {2: "object 2", 4: "object 4"}


# ---------------------------------------------------------------- outlines and mattes


def fill_with_coco(parts: list[np.ndarray], shape: tuple[int, ...]) -> np.ndarray:
    runs = coco_masks.frPyObjects([part.ravel().tolist() for part in parts], *shape)
    return coco_masks.decode(coco_masks.merge(runs))


def test_outlines_give_any_mask_back() -> None:
    rng = np.random.default_rng(0)
    for _ in range(150):
        mask = rng.random(rng.integers(1, 14, 2)) < rng.random()
        if mask.any():
            np.testing.assert_array_equal(fill_with_coco(outlines(mask), mask.shape), mask)
            whole = one_outline(mask)
            assert whole is not None
            np.testing.assert_array_equal(fill_with_coco([whole], mask.shape), mask)
    assert outlines(np.zeros((4, 4), bool)) == []
    assert one_outline(np.zeros((4, 4), bool)) is None


def test_a_matte_is_soft_at_the_edge_only() -> None:
    inside = np.zeros((100, 100), bool)
    inside[20:80, 20:80] = True
    probability = np.where(inside, 0.6, 0.4).astype(np.float32)
    matte = soft_edge(inside, probability)
    assert matte[50, 50] == 1
    assert matte[5, 5] == 0
    assert matte[50, 20] == pytest.approx(2 / 3)
    assert matte[50, 19] == pytest.approx(1 / 3)
    np.testing.assert_array_equal(soft_edge(inside, None), inside)


# ---------------------------------------------------------------- afterwards, and from Python


def test_formats_written_afterwards_are_those_of_the_run(tmp_path: Path) -> None:
    labels = ("coco", "yolo", "youtube-vis", "mots", "cvat", "mask-folders", "mask-videos")
    out = run(tmp_path / "out", "cut-out", probabilities=True)
    images = [result_at(index).frame for index in range(COUNT)]
    (tmp_path / "frames").mkdir()
    for frame in images:
        Image.fromarray(frame.image).save(tmp_path / "frames" / f"{frame.name}.png")
    before = contents(out)
    chosen = choose_formats([*labels, "cut-out"], Categories.parse(NAMES))
    with pytest.raises(StremnError, match="cut-out shows the frames: add --video"):
        write_formats(out, chosen)
    assert contents(out) == before
    with open_frames(tmp_path / "frames") as video:
        assert write_formats(out, chosen, video) == COUNT
    for name, content in before.items():
        if name.startswith("cut-out"):  # the stored probabilities are rounded
            first = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
            again = cv2.imread(str(out / name), cv2.IMREAD_UNCHANGED)
            np.testing.assert_allclose(again.astype(int), first, atol=1)
        else:
            assert (out / name).read_bytes() == content, name
    whole = run(tmp_path / "whole", *labels)
    for name, content in contents(whole).items():
        if name.startswith("mask-videos"):  # only the key frames differ
            pairs = zip(frames_of(out / name), frames_of(whole / name), strict=True)
            assert all(((a > 127) != (b > 127)).mean() < 0.001 for a, b in pairs)
        elif name.startswith(("objects", "youtube", "mots", "cvat", "mask-", "yolo")):
            found = (out / name).read_bytes()
            assert found.replace(b".png", b".jpg") == content.replace(b".png", b".jpg"), name
    with writer(out, existing="replace") as results:
        assert not (out / "objects.json").exists()
        assert not (out / "yolo").exists()
        results.write(result_at(0))


def test_afterwards_the_video_must_be_that_of_the_run(tmp_path: Path) -> None:
    out = run(tmp_path / "out")
    Image.new("RGB", (8, 8)).save(tmp_path / "shot 0.png")
    [green] = choose_formats(["green-screen"])
    with pytest.raises(StremnError, match="frame shot 0 is 8x8, and its mask 84x62: it is not"):
        write_formats(out, [green], open_frames(tmp_path / "shot 0.png"))
    Image.new("RGB", (8, 8)).save(tmp_path / "other.png")
    with pytest.raises(StremnError, match="The video has no frame shot 0"):
        write_formats(out, [green], open_frames(tmp_path / "other.png"))
    with pytest.raises(StremnError, match="holds no run"):
        write_formats(tmp_path, [green])


def cut_off(out: Path) -> None:
    path = out / "probabilities" / "shot 5.npz"
    path.write_bytes(path.read_bytes()[:200])


def of_another_size(out: Path) -> None:
    layers = np.zeros((1, 4, 4), np.float16)
    np.savez(out / "probabilities" / "shot 5.npz", ids=[2], probabilities=layers)


def in_color(out: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(out / "masks" / "shot 5.png")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (cut_off, r"The soft masks .*shot 5\.npz are damaged"),
        (
            of_another_size,
            r"shot 5\.npz are damaged \(its shape is \(1, 4, 4\)\)\. Remove the file",
        ),
        (in_color, r"shot 5\.png is gone or damaged \(it holds colors, not ids\)"),
        (lambda out: (out / "masks" / "shot 5.png").unlink(), r"shot 5\.png is gone or damaged"),
    ],
)
def test_formats_that_cannot_be_written_afterwards_leave_those_that_are_there(
    tmp_path: Path, damage: Callable[[Path], None], message: str
) -> None:
    out = run(tmp_path, "coco", "mask-folders", probabilities=True)
    damage(out)
    before = contents(out)
    with pytest.raises(StremnError, match=message):
        write_formats(out, choose_formats(["coco", "mask-folders", "mask-videos"]))
    assert contents(out) == before


def test_formats_are_not_written_through_a_link_afterwards(tmp_path: Path) -> None:
    out, elsewhere = run(tmp_path / "out"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (out / "mask-folders").mkdir()
    (out / "mask-folders" / "2").symlink_to(elsewhere)
    with pytest.raises(StremnError, match="2 is a link, and results are not written"):
        write_formats(out, choose_formats(["mask-folders"]))
    assert list(elsewhere.iterdir()) == []


def test_detections() -> None:
    result = result_at(6)
    found = detections(result)
    assert found.tracker_id.tolist() == found.class_id.tolist() == [2, 5]
    for number, item in enumerate((2, 5)):
        np.testing.assert_array_equal(found.mask[number], result.labels == item)
    np.testing.assert_array_equal(found.xyxy, sv.mask_to_xyxy(found.mask))
    assert found.confidence[1] == 1
    assert 0.5 < found.confidence[0] < 1
    nothing = FrameResult(result.frame, np.zeros_like(result.labels), {})
    assert len(detections(nothing)) == 0
