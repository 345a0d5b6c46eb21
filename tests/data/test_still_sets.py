"""Readers of still images on tiny folders in each layout, and the list of what is broken."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from stremn.data.clips.cut_outs import require_whole
from stremn.data.readers.instance_sets import CocoStills, SbdStills, coco_mask
from stremn.data.readers.lru_cache import Recent
from stremn.data.readers.problems import DataProblem, refuse
from stremn.data.readers.still_sets import (
    LAYOUTS,
    check_pairing,
    check_stills,
    find_pairs,
    open_stills,
    without,
)
from stremn.data.readers.stills import Kind, Pair, PairedStills, read_ids
from stremn.errors import StremnError
from stremn.media.mask_codes import VOID

MASK = np.zeros((12, 16), dtype=np.uint8)
MASK[3:9, 4:12] = 1


def write_image(path: Path, height: int = 12, width: int = 16) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((height, width, 3), dtype=np.uint8)
    pixels[..., 0] = 200
    Image.fromarray(pixels).save(path)


def write_mask(path: Path, mask: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(mask).save(path)


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_every_layout_is_read(tmp_path: Path, layout: str) -> None:
    folders = LAYOUTS[layout]
    for name in ("b", "a"):
        write_image(tmp_path / folders.images / f"{name}.jpg")
        write_mask(tmp_path / folders.masks / f"{name}.png", MASK * 255)
    stills = open_stills(tmp_path, "binary", layout)
    assert [Path(stills.name(i)).name for i in range(len(stills))] == ["a.jpg", "b.jpg"]
    still = stills.load(0)
    assert np.array_equal(still.ids, MASK)
    assert still.image.shape == (12, 16, 3)
    # RGB, not BGR.
    assert still.image[0, 0, 0] > 150
    assert still.image[0, 0, 2] < 50
    assert check_stills(stills) == []
    assert check_pairing(tmp_path, layout) == []


def test_layouts_and_folders_that_do_not_exist_are_refused(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match=r"Unknown layout 'ms'; known: folder, duts.*coco, sbd"):
        open_stills(tmp_path, layout="ms")
    with pytest.raises(StremnError, match="has no folder images; expected images in images/"):
        open_stills(tmp_path)
    write_image(tmp_path / "images" / "a.jpg")
    (tmp_path / "masks").mkdir()
    with pytest.raises(StremnError, match="holds no image with a mask of the same name"):
        open_stills(tmp_path)


def test_soft_binary_masks_split_at_half(tmp_path: Path) -> None:
    soft = np.arange(0, 256, 5, dtype=np.uint8)[None]
    write_mask(tmp_path / "soft.png", soft)
    assert np.array_equal(read_ids(tmp_path / "soft.png", "binary"), soft > 127)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0, 255], [0, 1]),
        ([0, 1, 255], [0, 1, 255]),  # 255 beside ids is void
        ([0, 5, 18, 20, 38], [0, 1, 1, 1, 1]),
        ([0, 100, 255], [0, 1, 1]),
        ([[0, 0, 0], [255, 0, 0], [255, 255, 255], [0, 0, 255]], [0, 1, 1, 1]),
        ([[0, 0, 0], [64, 0, 0], [192, 128, 0]], [0, 1, 1]),
    ],
)
def test_all_that_is_not_0_in_a_binary_mask_is_the_object(
    tmp_path: Path, values: list, expected: list[int]
) -> None:
    write_mask(tmp_path / "m.png", np.array([values], dtype=np.uint8))
    assert read_ids(tmp_path / "m.png", "binary").tolist() == [expected]


def test_ids_are_kept(tmp_path: Path) -> None:
    palette = Image.fromarray(np.array([[0, 1, 2, 255]], dtype=np.uint8), mode="P")
    palette.putpalette([0, 0, 0, 200, 10, 10, 10, 200, 10] + [0] * 759)
    palette.save(tmp_path / "ids.png")
    assert read_ids(tmp_path / "ids.png", "instances").tolist() == [[0, 1, 2, 255]]
    assert read_ids(tmp_path / "ids.png", "binary").tolist() == [[0, 1, 1, 255]]
    gray = Image.fromarray(np.array([[0, 38, 255]], dtype=np.uint8), mode="P")
    gray.putpalette([level for level in range(256) for _ in "rgb"])
    gray.save(tmp_path / "gray.png")
    assert read_ids(tmp_path / "gray.png", "binary").tolist() == [[0, 1, 1]]
    write_mask(tmp_path / "many.png", np.array([[0, 300]], dtype=np.uint16))
    with pytest.raises(StremnError, match="ids up to 300; the largest possible is 254"):
        read_ids(tmp_path / "many.png", "instances")
    write_mask(tmp_path / "color.png", np.zeros((2, 2, 3), dtype=np.uint8))
    with pytest.raises(StremnError, match=r"color\.png holds colors \(mode RGB\), not ids"):
        read_ids(tmp_path / "color.png", "parts")


def test_large_photographs_are_decoded_smaller_and_compared_in_full(tmp_path: Path) -> None:
    from PIL import Image as Pillow

    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    photo = np.zeros((2200, 4400, 3), np.uint8)
    photo[:, 2200:] = 200
    turned = Pillow.Exif()
    turned[0x0112] = 6  # a camera held sideways
    for name, extra in (("flat", {}), ("upright", {"exif": turned})):
        Pillow.fromarray(photo).save(tmp_path / "images" / f"{name}.jpg", **extra)
        shape = photo.shape[:2] if name == "flat" else photo.shape[1::-1]
        write_mask(tmp_path / "masks" / f"{name}.png", np.ones(shape, np.uint8))
    stills = open_stills(tmp_path)
    flat, upright = stills.load(0), stills.load(1)
    assert flat.image.shape == (256, 512, 3)
    assert upright.image.shape == (512, 256, 3)
    assert flat.image[:, :240].max() < 20 < 180 < flat.image[:, 270:].min()
    write_mask(tmp_path / "masks" / "flat.png", np.ones((1100, 2200), np.uint8))
    with pytest.raises(StremnError, match="has 4400x2200 pixels, its mask 2200x1100"):
        open_stills(tmp_path).load(0)


def broken_folder(root: Path) -> None:
    """One good still, and one of each thing that can be wrong."""
    for name in ("good", "sizes", "empty", "torn", "garbage", "alone"):
        write_image(root / "images" / f"{name}.jpg")
    (root / "images" / "garbage.jpg").write_bytes(b"not an image")
    write_mask(root / "masks" / "good.png", MASK)
    write_mask(root / "masks" / "garbage.png", MASK)
    write_mask(root / "masks" / "sizes.png", MASK[:6])
    write_mask(root / "masks" / "empty.png", MASK * 0)
    write_mask(root / "masks" / "orphan.png", MASK)
    (root / "masks" / "torn.png").write_bytes(b"\x89PNG\r\n")


def test_everything_broken_is_listed_together(tmp_path: Path) -> None:
    broken_folder(tmp_path)
    found = [*check_pairing(tmp_path), *check_stills(open_stills(tmp_path))]
    reasons = {Path(problem.where).name: problem.reason for problem in found}
    assert sorted(reasons) == [
        "alone.jpg", "empty.jpg", "garbage.jpg", "orphan.png", "sizes.jpg", "torn.jpg"
    ]  # fmt: skip
    assert "has no mask" in reasons["alone.jpg"]
    assert "has no image" in reasons["orphan.png"]
    assert "mask is empty" in reasons["empty.jpg"]
    assert "garbage.jpg cannot be read" in reasons["garbage.jpg"]
    assert "cannot be read as a mask" in reasons["torn.jpg"]
    assert "16x12 pixels, its mask 16x6" in reasons["sizes.jpg"]
    with pytest.raises(StremnError, match=r"(?s)6 problem\(s\).*alone.*torn.*leave out what"):
        refuse(found)


def test_masks_of_one_object_that_are_read_as_ids_are_explained(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
    write_image(tmp_path / "images" / "a.jpg")
    write_mask(tmp_path / "masks" / "a.png", (MASK > 0).astype(np.uint8) * 255)
    (found,) = check_stills(open_stills(tmp_path, "instances"))
    assert "only value beside 0 is 255, which is void" in found.reason
    assert 'the kind is "binary"' in found.reason
    assert not check_stills(open_stills(tmp_path, "binary"))


@pytest.mark.parametrize("kind", ["binary", "instances"])
def test_a_mask_damaged_in_the_middle_is_listed_too(tmp_path: Path, kind: Kind) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (400, 400), dtype=np.uint8)
    write_image(tmp_path / "images" / "a.png", 400, 400)
    write_mask(tmp_path / "masks" / "a.png", noise)
    content = bytearray((tmp_path / "masks" / "a.png").read_bytes())
    second = content.find(b"IDAT", content.find(b"IDAT") + 4)
    content[second : second + 4] = b"\x00\x01\x02\x03"  # no name of a chunk
    (tmp_path / "masks" / "a.png").write_bytes(content)
    (problem,) = check_stills(open_stills(tmp_path, kind))
    assert "a.png cannot be read" in problem.reason


def test_what_is_broken_can_be_skipped(tmp_path: Path) -> None:
    broken_folder(tmp_path)
    stills = open_stills(tmp_path)
    usable = without(stills, check_stills(stills))
    assert [Path(usable.name(i)).name for i in range(len(usable))] == ["good.jpg"]
    assert check_stills(usable) == []
    assert np.array_equal(usable.load(0).ids, MASK)
    refuse([])
    with pytest.raises(StremnError, match="none is left"):
        without(usable, [DataProblem(usable.name(0), "bad")])


def test_a_long_list_is_cut() -> None:
    with pytest.raises(StremnError, match="and 5 more"):
        refuse([DataProblem(f"{i}.jpg", "bad") for i in range(35)])


def test_large_pictures_are_reduced(tmp_path: Path) -> None:
    write_image(tmp_path / "big.jpg", 600, 1024)
    mask = np.zeros((600, 1024), dtype=np.uint8)
    mask[100:500, 200:800] = 1
    write_mask(tmp_path / "big.png", mask)
    still = PairedStills([Pair(tmp_path / "big.jpg", tmp_path / "big.png")], "binary").load(0)
    assert still.image.shape == (300, 512, 3)
    assert np.array_equal(np.unique(still.ids), [0, 1])
    assert still.ids.mean() == pytest.approx(mask.mean(), rel=0.02)


def test_the_cache_keeps_to_its_limit() -> None:
    read: list[str] = []

    def look(cache: Recent[str, str], name: str) -> str:
        return cache.get(name, lambda: (read.append(name), name * 10)[1])

    cache: Recent[str, str] = Recent(limit=20, size=len)
    assert [look(cache, name)[0] for name in "abacab"] == list("abacab")
    # c pushed out b, which had not been used for longest.
    assert read == ["a", "b", "c", "b"]
    nothing: Recent[str, str] = Recent(limit=0, size=len)
    assert [look(nothing, "x") for _ in range(2)] == ["xxxxxxxxxx"] * 2
    assert read[-2:] == ["x", "x"]


# --- COCO -----------------------------------------------------------------------------------------


def spelled(runs: list[int]) -> str:
    """COCO's string of run lengths, written by its definition."""
    text = ""
    for i, run in enumerate(runs):
        value = run - runs[i - 2] if i > 2 else run
        while True:
            bits, value = value & 0x1F, value >> 5
            done = (value == 0 and not bits & 0x10) or (value == -1 and bool(bits & 0x10))
            text += chr((bits if done else bits | 0x20) + 48)
            if done:
                break
    return text


def runs_of(mask: np.ndarray) -> list[int]:
    """Run lengths column by column, background first."""
    runs, value, length = [], 0, 0
    for pixel in mask.T.ravel():
        if pixel != value:
            runs.append(length)
            value, length = int(pixel), 0
        length += 1
    return [*runs, length]


@pytest.mark.parametrize("seed", range(5))
def test_run_lengths_are_decoded(seed: int) -> None:
    rng = np.random.default_rng(seed)
    mask = (cv2.GaussianBlur(rng.normal(size=(40, 70)), (0, 0), 3 + seed) > 0).astype(np.uint8)
    size = list(mask.shape)
    runs = runs_of(mask)
    assert np.array_equal(coco_mask({"counts": runs, "size": size}, 40, 70), mask)
    assert np.array_equal(coco_mask({"counts": spelled(runs), "size": size}, 40, 70), mask)


def test_polygons_of_one_object_may_overlap() -> None:
    square, lower = [2, 2, 8, 2, 8, 8, 2, 8], [5, 5, 11, 5, 11, 11, 5, 11]
    expected = np.zeros((14, 14), np.uint8)
    expected[2:9, 2:9] = expected[5:12, 5:12] = 1
    assert np.array_equal(coco_mask([square, lower], 14, 14), expected)
    assert np.array_equal(coco_mask([square, square], 14, 14), coco_mask([square], 14, 14))


def test_run_lengths_of_another_size_are_refused() -> None:
    with pytest.raises(StremnError, match=r"mask of \[3, 3\] does not fit an image of 12x16"):
        coco_mask({"counts": [4, 5], "size": [3, 3]}, 12, 16)
    for counts in ([100, 91], spelled([100, 91])):
        with pytest.raises(StremnError, match="cover 191 pixels, expected"):
            coco_mask({"counts": counts, "size": [12, 16]}, 12, 16)


def coco_folder(root: Path) -> Path:
    write_image(root / "train" / "1.jpg")
    crowd = np.zeros((12, 16), dtype=np.uint8)
    crowd[:, 15] = 1
    box = [[1, 1, 8, 1, 8, 10, 1, 10]]
    small = [[4, 4, 6, 4, 6, 6, 4, 6]]
    content = {
        "images": [{"id": 7, "file_name": "1.jpg"}, {"id": 8, "file_name": "none.jpg"}],
        "annotations": [
            {"image_id": 7, "segmentation": small, "area": 4, "iscrowd": 0},
            {"image_id": 7, "segmentation": box, "area": 63, "iscrowd": 0},
            {
                "image_id": 7,
                "segmentation": {"counts": runs_of(crowd), "size": [12, 16]},
                "area": 12,
                "iscrowd": 1,
            },
        ],
    }
    (root / "instances.json").write_text(json.dumps(content))
    return root / "instances.json"


def test_coco_instances_are_drawn_small_over_large(tmp_path: Path) -> None:
    stills = CocoStills(tmp_path / "train", coco_folder(tmp_path))
    assert len(stills) == 1
    ids = stills.load(0).ids
    assert stills.load(0).kind == "instances"
    assert ids[5, 5] != ids[2, 2]
    assert ids[2, 2] == ids[9, 2] != 0
    assert (ids[:, 15] == VOID).all()
    assert ids[0, 0] == 0
    assert check_stills(stills) == []


def test_official_coco_and_sbd_folders_are_opened(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match="expected COCO's official layout"):
        open_stills(tmp_path, layout="coco")
    (tmp_path / "annotations").mkdir()
    coco_folder(tmp_path).rename(tmp_path / "annotations" / "instances_train2014.json")
    (tmp_path / "train").rename(tmp_path / "train2014")
    stills = open_stills(tmp_path, layout="coco")
    assert len(stills) == 1
    assert check_stills(stills) == []
    assert check_pairing(tmp_path, "coco") == []
    (tmp_path / "train.txt").write_text("2008_1\n")
    assert Path(open_stills(tmp_path, layout="sbd").name(0)).name == "2008_1.jpg"


def test_unusable_coco_annotations_are_refused(tmp_path: Path) -> None:
    bad = tmp_path / "bad.json"
    with pytest.raises(StremnError, match=r"cannot be read as COCO instances: .*No such file"):
        CocoStills(tmp_path, bad)
    bad.write_text("{}")
    with pytest.raises(StremnError, match=r"cannot be read as COCO instances: .*is missing"):
        CocoStills(tmp_path, bad)
    bad.write_text('{"images": [], "annotations": []}')
    with pytest.raises(StremnError, match="annotates no image"):
        CocoStills(tmp_path, bad)


# --- SBD ------------------------------------------------------------------------------------------


def test_sbd_instances_are_read(tmp_path: Path) -> None:
    write_image(tmp_path / "img" / "2008_1.jpg")
    ids = MASK.copy()
    ids[0, 0] = 2
    (tmp_path / "inst").mkdir()
    savemat(
        str(tmp_path / "inst" / "2008_1.mat"), {"GTinst": {"Segmentation": ids, "Categories": [1]}}
    )
    (tmp_path / "train.txt").write_text("2008_1\n2008_2\n")
    stills = SbdStills(tmp_path)
    assert len(stills) == 2
    assert np.array_equal(stills.load(0).ids, ids)
    with pytest.raises(StremnError, match=r"2008_2.mat cannot be read as SBD instances"):
        stills.load(1)
    with pytest.raises(StremnError, match=r"has no val.txt; expected SBD's"):
        SbdStills(tmp_path, "val")


def test_pairs_are_found_by_name(tmp_path: Path) -> None:
    broken_folder(tmp_path)
    pairs, images, masks = find_pairs(tmp_path, LAYOUTS["folder"])
    assert [pair.image.stem for pair in pairs] == ["empty", "garbage", "good", "sizes", "torn"]
    assert [path.stem for path in images] == ["alone"]
    assert [path.stem for path in masks] == ["orphan"]


@pytest.mark.parametrize("kind", ["binary", "instances", "parts"])
def test_sets_without_an_object_to_cut_out_are_named_together(tmp_path: Path, kind: Kind) -> None:
    cut_off = np.zeros_like(MASK)
    cut_off[:, :4] = 1
    cut_off[:, -4:] = 2
    for name, mask in (("a", cut_off), ("b", MASK), ("c", cut_off), ("b", cut_off)):
        stem = len(list((tmp_path / name).glob("images/*")))
        write_image(tmp_path / name / "images" / f"{stem}.jpg")
        write_mask(tmp_path / name / "masks" / f"{stem}.png", mask)
    sets = {name: open_stills(tmp_path / name, kind) for name in "abc"}
    require_whole({"b": sets["b"]})
    with pytest.raises(StremnError, match=r"No object lies whole in its picture in a, c, and"):
        require_whole(sets)
    write_mask(tmp_path / "c" / "masks" / "0.png", np.where(cut_off == 2, 2, MASK))
    if kind == "instances":  # one of two is whole
        require_whole({"c": open_stills(tmp_path / "c", kind)})


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ([0, 1, 1, 0], [0, 1, 1, 0]),
        ([0, 1, 2, 3], [0, 1, 1, 1]),  # ids: every one is the object
        ([0, 1, 255, 2], [0, 1, VOID, 1]),  # 255 beside ids is void
        ([0, 255, 255, 0], [0, 1, 1, 0]),
        ([0, 40, 200, 255], [0, 1, 1, 1]),
        ([0, 0, 0, 0], [0, 0, 0, 0]),
    ],
)
@pytest.mark.parametrize("mode", ["L", "P"])
def test_binary_masks_hold_ids_or_levels(
    tmp_path: Path, row: list[int], expected: list[int], mode: str
) -> None:
    image = Image.fromarray(np.array([row, row], np.uint8))
    if mode == "P":
        image.putpalette([level for level in range(256) for _ in "rgb"])
    image.save(tmp_path / "m.png")
    assert read_ids(tmp_path / "m.png", "binary").tolist() == [expected, expected]
