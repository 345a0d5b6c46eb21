"""Mask files: every way to say ids, every way to spoil them, repair, drawing, sets of masks."""

import io
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from stremn.errors import StremnError
from stremn.media.mask_check import diagnose, repair
from stremn.media.mask_sets import open_masks
from stremn.media.masks import (
    ColorTable,
    label_map,
    objects_of,
    overlay,
    read_mask,
    repair_command,
    write_mask,
)
from stremn.media.palettes import palette

SIZE = (60, 80)


def scene(ids: tuple[int, ...] = (1, 2)) -> np.ndarray:
    """Two discs, the second partly over the first."""
    labels = np.zeros(SIZE, dtype=np.int32)
    for position, item in enumerate(ids):
        cv2.circle(labels, (25 + 25 * position, 30), 16, item, cv2.FILLED)
    return labels


def in_color(labels: np.ndarray, colors: dict[int, tuple[int, int, int]]) -> np.ndarray:
    rgb = np.zeros((*labels.shape, 3), dtype=np.uint8)
    for item, color in colors.items():
        rgb[labels == item] = color
    return rgb


def softened(image: np.ndarray, factor: int = 4) -> np.ndarray:
    """Anti-aliased edges: drawn large, made small."""
    height, width = image.shape[:2]
    return cv2.resize(image, (width // factor, height // factor), interpolation=cv2.INTER_AREA)


def save(path: Path, array: np.ndarray) -> Path:
    Image.fromarray(array).save(path)
    return path


# ---------------------------------------------------------------- palette


def test_palette_has_the_known_first_colors() -> None:
    expected = [
        (0, 0, 0), (128, 0, 0), (0, 128, 0), (128, 128, 0), (0, 0, 128), (128, 0, 128),
        (0, 128, 128), (128, 128, 128), (64, 0, 0), (192, 0, 0), (64, 128, 0),
    ]  # fmt: skip
    assert [tuple(color) for color in palette()[:11].tolist()] == expected
    assert tuple(palette()[255]) == (224, 224, 192)
    assert len(np.unique(palette(), axis=0)) == 256


# ---------------------------------------------------------------- all ways to say ids


def test_palette_png_keeps_ids(tmp_path: Path) -> None:
    labels = scene((3, 17)).astype(np.uint8)
    write_mask(tmp_path / "m.png", labels)
    with Image.open(tmp_path / "m.png") as image:
        assert image.mode == "P"
        assert image.getpalette()[:6] == [0, 0, 0, 128, 0, 0]
    found = read_mask(tmp_path / "m.png", SIZE)
    np.testing.assert_array_equal(found.labels, labels)
    assert found.labels.dtype == np.uint8
    assert found.ids == (3, 17)
    assert found.size == SIZE


@settings(max_examples=25, deadline=None)
@given(
    labels=arrays.arrays(
        np.uint16, st.tuples(st.integers(1, 9), st.integers(1, 9)), elements=st.integers(0, 65534)
    )
)
def test_any_ids_survive_writing_and_reading(
    tmp_path_factory: pytest.TempPathFactory, labels: np.ndarray
) -> None:
    labels = np.where(labels == 255, 0, labels).astype(np.uint16)
    path = tmp_path_factory.mktemp("masks") / "m.png"
    write_mask(path, labels)
    found = label_map(np.asarray(Image.open(path)))
    np.testing.assert_array_equal(found.labels, labels)


def test_wide_ids_are_written_as_16_bit_and_read_back(tmp_path: Path) -> None:
    labels = scene((7, 1000)).astype(np.uint16)
    write_mask(tmp_path / "m.png", labels)
    found = read_mask(tmp_path / "m.png")
    np.testing.assert_array_equal(found.labels, labels)
    assert found.labels.dtype == np.uint16
    assert found.ids == (7, 1000)
    kinds = [problem.kind for problem in diagnose(tmp_path / "m.png").problems]
    assert "wide-ids" in kinds


@pytest.mark.parametrize("ids", [(1, 2), (38 + 1, 200), (5, 9)])
def test_grey_values_are_ids(tmp_path: Path, ids: tuple[int, int]) -> None:
    path = save(tmp_path / "m.png", scene(ids).astype(np.uint8))
    assert read_mask(path).ids == ids


@pytest.mark.parametrize("mode", ["L", "P", "1", "I;16", "RGB", "LA", "RGBA"])
def test_black_and_white_is_one_object(tmp_path: Path, mode: str) -> None:
    white = (scene((1, 1)) > 0).astype(np.uint8) * 255
    image = Image.fromarray(white)
    if mode == "P":
        image = Image.fromarray(white)
        image.putpalette([value for i in range(256) for value in (i, i, i)])
    elif mode == "I;16":
        image = Image.fromarray(white.astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    image.save(tmp_path / "m.png")
    found = read_mask(tmp_path / "m.png")
    assert found.ids == (1,)
    np.testing.assert_array_equal(found.labels > 0, white > 0)


def test_void_pixels_of_a_palette_mask_are_background(tmp_path: Path) -> None:
    labels = scene().astype(np.uint8)
    labels[:3] = 255
    write_mask(tmp_path / "m.png", labels)
    found = read_mask(tmp_path / "m.png")
    assert found.ids == (1, 2)
    assert not found.labels[:3].any()
    assert any("index 255 (void)" in p.text for p in diagnose(tmp_path / "m.png").problems)


def test_colors_are_objects_in_a_stable_order(tmp_path: Path) -> None:
    first = save(tmp_path / "a.png", in_color(scene(), {1: (250, 20, 30), 2: (0, 200, 255)}))
    found = read_mask(first)
    assert found.ids == (1, 2)
    # (0, 200, 255) comes before (250, 20, 30).
    np.testing.assert_array_equal(found.labels == 1, scene() == 2)
    table = ColorTable()
    assert read_mask(first, colors=table).ids == (1, 2)
    third = save(tmp_path / "b.png", in_color(scene(), {1: (250, 20, 30), 2: (0, 10, 0)}))
    later = read_mask(third, colors=table)
    np.testing.assert_array_equal(later.labels == 2, scene() == 1)
    np.testing.assert_array_equal(later.labels == 3, scene() == 2)


def test_colors_of_the_standard_palette_keep_their_index(tmp_path: Path) -> None:
    labels = scene((2, 6)).astype(np.uint8)
    path = save(tmp_path / "m.png", palette()[labels])
    np.testing.assert_array_equal(read_mask(path).labels, labels)


def test_quantized_palette_with_background_elsewhere_is_read_by_color(tmp_path: Path) -> None:
    indices = np.array([1, 0, 2], dtype=np.uint8)[scene()]
    image = Image.fromarray(indices)
    image.putpalette([250, 20, 30, 0, 0, 0, 0, 200, 255])
    image.save(tmp_path / "m.png")
    found = read_mask(tmp_path / "m.png")
    assert len(found.ids) == 2
    np.testing.assert_array_equal(found.labels == 0, scene() == 0)


def test_transparency_is_background(tmp_path: Path) -> None:
    labels = scene()
    opaque = (labels > 0).astype(np.uint8) * 255
    noise = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    cut_out = save(tmp_path / "cut.png", np.dstack([noise, opaque]))
    assert read_mask(cut_out).ids == (1,)
    np.testing.assert_array_equal(read_mask(cut_out).labels > 0, labels > 0)
    flat = np.dstack([in_color(labels, {0: (9, 9, 9), 1: (255, 0, 0), 2: (0, 0, 255)}), opaque])
    found = read_mask(save(tmp_path / "flat.png", flat))
    assert found.ids == (1, 2)
    np.testing.assert_array_equal(found.labels == 0, labels == 0)
    silhouette = np.dstack([np.zeros((*SIZE, 3), np.uint8), opaque])
    np.testing.assert_array_equal(
        read_mask(save(tmp_path / "black.png", silhouette)).labels > 0, labels > 0
    )


def test_arrays_and_images_are_masks_too() -> None:
    labels = scene((4, 300))
    assert read_mask(labels).ids == (4, 300)
    assert read_mask(labels[..., None]).ids == (4, 300)
    assert read_mask(labels > 0).ids == (1,)
    assert read_mask(Image.fromarray(scene().astype(np.uint8))).ids == (1, 2)
    assert read_mask(in_color(scene(), {1: (1, 2, 3), 2: (9, 8, 7)})).ids == (1, 2)


# ---------------------------------------------------------------- refusals


def test_refusals_say_what_and_what_to_do(tmp_path: Path) -> None:
    empty = save(tmp_path / "empty.png", np.zeros(SIZE, np.uint8))
    with pytest.raises(StremnError, match=r"empty\.png cannot be used: it holds no object"):
        read_mask(empty)
    small = save(tmp_path / "small.png", scene().astype(np.uint8))
    with pytest.raises(
        StremnError,
        match=r"it is 80x60 but the frame is 160x120.*check-mask .*small\.png --frame VIDEO -o",
    ):
        read_mask(small, (120, 160))
    with pytest.raises(StremnError, match=r"80x60 but the frame is 60x80.*turned by 90 degrees"):
        read_mask(small, (80, 60))
    with pytest.raises(StremnError, match="of another shape"):
        read_mask(small, (60, 60))
    with pytest.raises(StremnError, match=r"There is no mask file .*nope\.png"):
        read_mask(tmp_path / "nope.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(StremnError, match=r"text\.png is not an image"):
        read_mask(tmp_path / "text.png")
    whole = small.read_bytes()
    (tmp_path / "cut.png").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(StremnError, match=r"cut\.png cannot be read"):
        read_mask(tmp_path / "cut.png")
    Image.fromarray(scene().astype(np.float32)).save(tmp_path / "float.tiff")
    with pytest.raises(StremnError, match="holds decimal numbers"):
        read_mask(tmp_path / "float.tiff")


def test_arrays_that_are_no_label_maps() -> None:
    with pytest.raises(StremnError, match=r"integer ids .* got float64"):
        read_mask(np.zeros(SIZE))
    with pytest.raises(StremnError, match=r"shape \(height, width\), got \(2, 3, 4, 5\)"):
        read_mask(np.zeros((2, 3, 4, 5), np.uint8))
    with pytest.raises(StremnError, match="ids from 0 to 65535, got -1"):
        read_mask(np.full(SIZE, -1))
    with pytest.raises(StremnError, match="got 70000"):
        read_mask(Image.fromarray(np.full(SIZE, 70000, np.int32)))


# ---------------------------------------------------------------- spoiled masks


def overlap(found: np.ndarray, expected: np.ndarray, item: int) -> float:
    a, b = found == item, expected == item
    return float((a & b).sum() / (a | b).sum())


def large_scene(ids: tuple[int, ...]) -> np.ndarray:
    return cv2.resize(
        scene(ids).astype(np.uint8), (1280, 960), interpolation=cv2.INTER_NEAREST
    )  # 16 times as large


def test_anti_aliased_black_and_white(tmp_path: Path) -> None:
    white = softened(large_scene((255, 255)), 7)
    path = save(tmp_path / "soft.png", white)
    assert len(np.unique(white)) > 10
    with pytest.raises(StremnError, match=r"would be read as \d+ objects, but \d+ .* only soft"):
        read_mask(path)
    report = diagnose(path)
    assert not report.usable
    assert report.repairable
    assert [item.id for item in report.objects] == [1]
    mended = repair(path)
    assert mended.ids == (1,)
    assert (mended.labels != (white > 127)).mean() < 0.001


def test_anti_aliased_grey_ids(tmp_path: Path) -> None:
    sharp = large_scene((100, 200))
    path = save(tmp_path / "soft.png", softened(sharp, 7))
    expected = cv2.resize(sharp, (182, 137), interpolation=cv2.INTER_NEAREST)
    mended = repair(path)
    assert mended.ids == (100, 200)
    assert overlap(mended.labels, expected, 100) > 0.95
    assert overlap(mended.labels, expected, 200) > 0.95
    # No rim of 100 is left around 200, though 100 lies between 200 and 0.
    apart = cv2.distanceTransform((expected != 100).astype(np.uint8), cv2.DIST_L2, 5)
    assert not ((mended.labels == 100) & (apart > 6)).any()


def test_anti_aliased_colors(tmp_path: Path) -> None:
    colors = {1: (250, 20, 30), 2: (0, 200, 255)}
    sharp = in_color(large_scene((1, 2)), colors)
    path = save(tmp_path / "soft.png", softened(sharp, 7))
    with pytest.raises(StremnError, match="soft"):
        read_mask(path)
    mended = repair(path)
    assert mended.ids == (1, 2)
    expected = cv2.resize(large_scene((1, 2)), (182, 137), interpolation=cv2.INTER_NEAREST)
    assert overlap(mended.labels, expected, 1) < 0.01  # ids go by color: red is 2
    assert overlap(np.array([0, 2, 1])[mended.labels], expected, 1) > 0.95
    assert overlap(np.array([0, 2, 1])[mended.labels], expected, 2) > 0.95


def test_palette_mask_that_was_resized_smoothly(tmp_path: Path) -> None:
    indices = softened(large_scene((4, 9)), 7)
    write_mask(tmp_path / "soft.png", indices)
    with pytest.raises(StremnError, match="soft"):
        read_mask(tmp_path / "soft.png")
    mended = repair(tmp_path / "soft.png")
    assert mended.ids == (4, 9)


@pytest.mark.parametrize("quality", [30, 60, 95])
@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_files(tmp_path: Path, quality: int, suffix: str) -> None:
    colors = {1: (250, 20, 30), 2: (0, 200, 255)}
    sharp = cv2.resize(scene().astype(np.uint8), (320, 240), interpolation=cv2.INTER_NEAREST)
    path = tmp_path / f"m.{suffix}"
    Image.fromarray(in_color(sharp, colors)).save(path, quality=quality)
    report = diagnose(path)
    assert any(problem.kind == "lossy" for problem in report.problems)
    mended = repair(path)
    assert len(mended.ids) == 2
    swapped = np.array([0, 2, 1])[mended.labels]
    assert overlap(swapped, sharp, 1) > 0.95
    assert overlap(swapped, sharp, 2) > 0.95


def test_lossy_black_and_white(tmp_path: Path) -> None:
    white = cv2.resize(scene((255, 255)).astype(np.uint8), (320, 240), interpolation=0)
    Image.fromarray(white).save(tmp_path / "m.jpg", quality=50)
    mended = repair(tmp_path / "m.jpg")
    assert mended.ids == (1,)
    assert overlap(mended.labels, (white > 0).astype(int), 1) > 0.98


def test_a_picture_is_no_mask(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)
    path = save(tmp_path / "frame.png", cv2.GaussianBlur(noise, (9, 9), 0))
    with pytest.raises(StremnError, match="looks like a picture, not like a mask"):
        read_mask(path)
    with pytest.raises(StremnError, match="cannot be repaired: it looks like a picture"):
        repair(path)
    assert not diagnose(path).repairable


def test_tiny_separate_objects_are_no_soft_edges(tmp_path: Path) -> None:
    labels = scene((1, 1)).astype(np.uint8)
    for item in range(2, 9):
        labels[2:4, 8 * item : 8 * item + 2] = item
    path = tmp_path / "m.png"
    write_mask(path, labels)
    assert read_mask(path).ids == tuple(range(1, 9))
    np.testing.assert_array_equal(repair(path).labels, labels)


def test_thin_parts_that_are_soft_all_over_are_no_objects(tmp_path: Path) -> None:
    sharp = np.zeros((240, 320), np.uint8)
    cv2.circle(sharp, (120, 120), 60, 255, cv2.FILLED)
    cv2.line(sharp, (120, 120), (310, 20), 255, 4)  # no flat spot, and far away
    soft = save(tmp_path / "soft.png", cv2.GaussianBlur(sharp, (5, 5), 0))
    report = diagnose(soft)
    assert [item.id for item in report.objects] == [1]
    assert not report.usable
    overlap = (repair(soft).labels > 0) & (sharp > 0)
    assert overlap.sum() > 0.95 * (sharp > 0).sum()


def test_a_photo_is_reported_without_objects(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    report = diagnose(save(tmp_path / "photo.png", noise))  # more colors than there are ids
    assert report.objects == ()
    assert "it looks like a picture" in "".join(report.lines())


def test_inverted_masks_are_noted(tmp_path: Path) -> None:
    inverted = np.full(SIZE, 255, np.uint8)
    inverted[20:40, 30:50] = 0
    text = "".join(diagnose(save(tmp_path / "inverted.png", inverted)).lines())
    assert "are object and background swapped?" in text
    text = "".join(diagnose(save(tmp_path / "right.png", 255 - inverted)).lines())
    assert "swapped" not in text


def test_the_command_that_repairs_quotes_names() -> None:
    assert repair_command("a b.png", None) == "stremn check-mask 'a b.png' -o repaired.png"
    command = repair_command("m.png", "my clip.mp4")
    assert command == "stremn check-mask m.png --frame 'my clip.mp4' -o repaired.png"


def test_lost_palette_is_noticed_and_repaired(tmp_path: Path) -> None:
    labels = scene((1, 3)).astype(np.uint8)
    image = Image.fromarray(labels)
    image.putpalette(palette().tobytes())
    image.convert("L").save(tmp_path / "grey.png")
    report = diagnose(tmp_path / "grey.png")
    assert any("ids 1, 3 were probably meant" in problem.text for problem in report.problems)
    np.testing.assert_array_equal(repair(tmp_path / "grey.png").labels, labels)


def test_dark_grey_is_explained(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", scene().astype(np.uint8))
    assert any("look black in an image viewer" in p.text for p in diagnose(path).problems)


def test_size_is_repaired_when_the_shape_agrees(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", scene((3, 9)).astype(np.uint8))
    mended = repair(path, (120, 160))
    assert mended.size == (120, 160)
    assert mended.ids == (3, 9)
    np.testing.assert_array_equal(mended.labels[::2, ::2], scene((3, 9)))
    with pytest.raises(StremnError, match=r"cannot be repaired: it is 80x60 but .* another shape"):
        repair(path, (60, 60))


def test_masks_without_background_are_noted(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", (scene() + 1).astype(np.uint8))
    assert read_mask(path).ids == (1, 2, 3)
    assert any(problem.kind == "full" for problem in diagnose(path).problems)


def test_repair_leaves_a_good_mask_alone(tmp_path: Path) -> None:
    labels = scene((3, 17)).astype(np.uint8)
    labels[0, 0] = 3  # a lone pixel
    write_mask(tmp_path / "m.png", labels)
    np.testing.assert_array_equal(repair(tmp_path / "m.png").labels, labels)
    assert diagnose(tmp_path / "m.png").problems == ()


def test_report_in_words(tmp_path: Path) -> None:
    path = save(tmp_path / "m.png", scene().astype(np.uint8))
    lines = diagnose(path, (120, 160)).lines()
    assert lines[0].endswith("m.png: 80x60, grey values are ids, 2 objects")
    assert lines[1].startswith("  id 1: ")
    assert "  problem: it is 80x60 but the frame is 160x120 (width x height) (can be repaired)" in (
        lines
    )


def test_objects_of_gives_pixels_and_boxes() -> None:
    labels = np.zeros((10, 12), int)
    labels[2:5, 3:10] = 7
    (item,) = objects_of(label_map(labels))
    assert (item.id, item.pixels, item.box) == (7, 21, (3, 2, 7, 3))


# ---------------------------------------------------------------- overlay


def test_overlay_leaves_background_and_tints_objects() -> None:
    frame = np.full((*SIZE, 3), 100, dtype=np.uint8)
    labels = scene().astype(np.uint8)
    before = frame.copy()
    drawn = overlay(frame, labels, alpha=0.5)
    np.testing.assert_array_equal(frame, before)
    inside = cv2.erode((labels == 1).astype(np.uint8), np.ones((7, 7))) > 0
    outside = cv2.dilate((labels > 0).astype(np.uint8), np.ones((7, 7))) == 0
    assert (drawn[outside] == 100).all()
    assert len(np.unique(drawn[inside], axis=0)) == 1
    assert (drawn[inside][0] != 100).any()
    np.testing.assert_array_equal(overlay(frame, np.zeros(SIZE, np.uint8)), frame)


def test_overlay_draws_wide_ids() -> None:
    frame = np.full((*SIZE, 3), 100, dtype=np.uint8)
    drawn = overlay(frame, scene((256, 65535)).astype(np.uint16))
    assert (drawn[30, 15] != 100).any()
    assert (drawn[30, 60] != 100).any()


def test_overlay_refuses_another_size() -> None:
    with pytest.raises(StremnError, match="must have one size"):
        overlay(np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5), np.uint8))


# ---------------------------------------------------------------- masks of a video


def test_one_file_is_for_the_first_frame(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", scene().astype(np.uint8))
    masks = open_masks(tmp_path / "m.png", SIZE)
    assert masks.kind == "first"
    assert masks.frames == (0,)
    assert masks.at(0).ids == (1, 2)
    assert masks.at(1) is None


def test_folder_named_by_frame(tmp_path: Path) -> None:
    write_mask(tmp_path / "00000.png", scene((1,)).astype(np.uint8))
    write_mask(tmp_path / "00012.png", scene((0, 2)).astype(np.uint8))
    masks = open_masks(tmp_path, SIZE)
    assert (masks.kind, masks.frames) == ("frames", (0, 12))
    assert masks.at(12).ids == (2,)
    named = tmp_path / "named"
    named.mkdir()
    write_mask(named / "shot b.png", scene((1,)).astype(np.uint8))
    masks = open_masks(named, SIZE, names=["shot a", "shot b"])
    assert (masks.kind, masks.frames) == ("frames", (1,))


def test_colors_keep_their_id_over_the_frames(tmp_path: Path) -> None:
    save(tmp_path / "00000.png", in_color(scene(), {1: (250, 0, 1)}))
    save(tmp_path / "00005.png", in_color(scene(), {1: (250, 0, 1), 2: (3, 99, 1)}))
    masks = open_masks(tmp_path, SIZE)
    assert masks.at(0).ids == (1,)
    assert masks.at(5).labels[30, 15] == 1
    assert masks.at(5).labels[30, 60] == 2


def test_folder_with_one_file_per_object(tmp_path: Path) -> None:
    for name, item in (("3", 1), ("11", 2)):
        save(tmp_path / f"{name}.png", (scene() == item).astype(np.uint8) * 255)
    masks = open_masks(tmp_path, SIZE)
    assert masks.kind == "objects"
    found = masks.at(0)
    assert found.ids == (3, 11)
    np.testing.assert_array_equal(found.labels == 11, scene() == 2)
    names = tmp_path / "names"
    names.mkdir()
    for name, item in (("dog", 1), ("cat", 2)):
        save(names / f"{name}.png", (scene() == item).astype(np.uint8) * 255)
    masks = open_masks(names, SIZE)
    assert masks.object_names == {1: "cat", 2: "dog"}
    np.testing.assert_array_equal(masks.at(0).labels == 1, scene() == 2)


def test_short_numbers_can_be_said_to_be_frames(tmp_path: Path) -> None:
    write_mask(tmp_path / "1.png", scene((1,)).astype(np.uint8))
    write_mask(tmp_path / "7.png", scene((0, 2)).astype(np.uint8))
    assert open_masks(tmp_path, SIZE).kind == "objects"
    masks = open_masks(tmp_path, SIZE, by="frame")
    assert masks.frames == (1, 7)


def test_numbers_of_one_length_with_zeros_are_frames(tmp_path: Path) -> None:
    write_mask(tmp_path / "0000.png", scene((1,)).astype(np.uint8))
    write_mask(tmp_path / "0025.png", scene((0, 2)).astype(np.uint8))
    masks = open_masks(tmp_path, SIZE)
    assert (masks.kind, masks.frames) == ("frames", (0, 25))
    for names in (("01", "02"), ("001",), ("100", "200"), ("dog001", "dog002")):
        folder = tmp_path / "-".join(names)
        folder.mkdir()
        for name in names:
            write_mask(folder / f"{name}.png", scene((1,)).astype(np.uint8))
        assert open_masks(folder, SIZE).kind == "objects"


def test_a_number_that_is_no_frames_name_is_not_taken_for_its_place(tmp_path: Path) -> None:
    names = [f"{index:05d}" for index in range(10, 40)]
    write_mask(tmp_path / "00003.png", scene((1,)).astype(np.uint8))
    with pytest.raises(StremnError, match=r"00003\.png is not named after a frame.*00010\.png"):
        open_masks(tmp_path, SIZE, names=names, by="frame")


def test_sets_that_make_no_sense(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match="no mask file or folder"):
        open_masks(tmp_path / "nope", SIZE)
    with pytest.raises(StremnError, match="holds no mask images"):
        open_masks(tmp_path, SIZE)
    write_mask(tmp_path / "00000.png", scene((1,)).astype(np.uint8))
    write_mask(tmp_path / "dog.png", scene().astype(np.uint8))
    with pytest.raises(StremnError, match=r"named like frames, but dog\.png is not"):
        open_masks(tmp_path, SIZE)
    with pytest.raises(StremnError, match=r"dog\.png is not named after a frame"):
        open_masks(tmp_path, SIZE, by="frame")
    (tmp_path / "00000.png").unlink()
    with pytest.raises(StremnError, match=r"dog\.png holds 2 objects, but a folder with one file"):
        open_masks(tmp_path, SIZE).at(0)


def test_write_mask_is_whole_or_absent(tmp_path: Path) -> None:
    write_mask(tmp_path / "m.png", scene().astype(np.uint8))
    assert [path.name for path in tmp_path.iterdir()] == ["m.png"]
    with Image.open(io.BytesIO((tmp_path / "m.png").read_bytes())) as image:
        image.load()
    (tmp_path / "file").write_text("x")
    with pytest.raises(StremnError, match="a part of this path is a file"):
        write_mask(tmp_path / "file" / "m.png", scene().astype(np.uint8))
