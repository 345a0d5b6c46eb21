"""Binary masks with soft edges or compression noise are cut at half; ids stay ids."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, ImageDraw

from stremn.data.readers.still_sets import check_stills, open_stills
from stremn.data.readers.stills import Kind, read_ids
from stremn.errors import StremnError
from stremn.media.mask_codes import VOID

WIDTH, HEIGHT = 160, 120


def ellipse(scale: int = 1, white: int = 255) -> Image.Image:
    image = Image.new("L", (WIDTH * scale, HEIGHT * scale))
    box = [30 * scale, 15 * scale, 130 * scale, 105 * scale]
    ImageDraw.Draw(image).ellipse(box, fill=white)
    return image


def spikes(scale: int = 1, white: int = 255) -> Image.Image:
    """A polygon with sharp corners, and a line one pixel wide that crosses it."""
    image = Image.new("L", (WIDTH * scale, HEIGHT * scale))
    draw = ImageDraw.Draw(image)
    corners = [(20, 20), (140, 30), (80, 60), (130, 110), (30, 100)]
    draw.polygon([(x * scale, y * scale) for x, y in corners], fill=white)
    draw.line([(5 * scale, 5 * scale), (150 * scale, 115 * scale)], fill=white, width=scale)
    return image


def read(path: Path, image: Image.Image, **options: object) -> np.ndarray:
    image.save(path, **options)
    return read_ids(path, "binary")


# --- soft edges


@pytest.mark.parametrize("shape", [ellipse, spikes])
@pytest.mark.parametrize("white", [255, 200])
@pytest.mark.parametrize("scale", [2, 3, 4, 8])
def test_anti_aliased_masks_are_cut_at_half(
    tmp_path: Path, shape: type, white: int, scale: int
) -> None:
    soft = shape(scale, white).resize((WIDTH, HEIGHT), Image.Resampling.BOX)
    expected = np.asarray(soft) * 2.0 > white
    assert np.array_equal(read(tmp_path / "m.png", soft), expected)


@pytest.mark.parametrize("shape", [ellipse, spikes])
def test_soft_masks_of_16_gray_levels_are_cut_at_half(tmp_path: Path, shape: type) -> None:
    blurred = cv2.GaussianBlur(np.asarray(shape()), (0, 0), 1.0)
    soft = (np.round(blurred / 17) * 17).astype(np.uint8)
    assert 3 < len(np.unique(soft)) <= 16
    assert np.array_equal(read(tmp_path / "m.png", Image.fromarray(soft)), soft > 127)


def test_enlarged_masks_are_cut_at_half(tmp_path: Path) -> None:
    large = ellipse().resize((2 * WIDTH, 2 * HEIGHT), Image.Resampling.BILINEAR)
    assert 3 < len(np.unique(np.asarray(large))) <= 32
    assert np.array_equal(read(tmp_path / "m.png", large), np.asarray(large) > 127)


# --- ids


def regions(*ids: int, side: int = 14) -> np.ndarray:
    """Squares of these ids beside one another, each larger than the one before."""
    found = np.zeros((60, 20 * len(ids) + 10), np.uint8)
    for place, value in enumerate(ids):
        found[4 : 4 + side + place, 4 + 20 * place : 4 + 20 * place + side] = value
    return found


def person_with_ball() -> np.ndarray:
    """Large values of ids, of which one is far smaller than the others and touches one."""
    found = np.zeros((HEIGHT, WIDTH), np.uint8)
    found[10:110, 40:100], found[50:54, 100:104], found[20:30, 110:150] = 200, 100, 60
    return found


def lane_markings() -> np.ndarray:
    """Thin lines of several ids in a large region of another."""
    found = np.full((HEIGHT, WIDTH), 240, np.uint8)
    found[:20], found[40:42], found[60:62], found[80:82, ::20] = 0, 80, 120, 40
    return found


ID_MAPS = {
    "one": regions(1),
    "one in white": regions(255),
    "small numbers": regions(1, 2, 3, 4, 5, 6),
    "thirty": regions(*range(1, 31), side=8),
    "single pixels": np.arange(20, dtype=np.uint8).reshape(4, 5),
    "thin contours of small numbers": np.where(
        cv2.dilate(regions(3), np.ones((3, 3), np.uint8)) > regions(3), 1, regions(3)
    ),
    "every fortieth": regions(40, 80, 120, 160, 200, 240),
    "colors turned gray": regions(38, 75, 113, 14, 52, 89),
    "a large one among small ones": person_with_ball(),
    "lines": lane_markings(),
    "apart and thin": np.kron(np.diag([50, 90, 130, 170, 210]), np.ones((1, 9))).astype(np.uint8),
}


@pytest.mark.parametrize("name", ID_MAPS)
def test_all_ids_are_the_object(tmp_path: Path, name: str) -> None:
    ids = ID_MAPS[name]
    assert np.array_equal(read(tmp_path / "m.png", Image.fromarray(ids)), ids > 0)


def test_void_beside_small_ids_stays_void(tmp_path: Path) -> None:
    ids = cv2.dilate(regions(2, 1, 4), np.ones((5, 5), np.uint8))
    ids = np.where(regions(2, 1, 4) != ids, np.uint8(VOID), ids)
    expected = np.where(ids == VOID, VOID, ids > 0)
    assert np.array_equal(read(tmp_path / "m.png", Image.fromarray(ids)), expected)


# --- lossy files


@pytest.mark.parametrize("quality", [50, 75, 90, 95, 98, 100])
@pytest.mark.parametrize("shape", [ellipse, spikes])
def test_a_jpeg_of_a_mask_is_the_mask(tmp_path: Path, shape: type, quality: int) -> None:
    found = read(tmp_path / "m.jpg", shape(), quality=quality)
    expected = np.asarray(shape()) > 127
    assert set(np.unique(found)) == {0, 1}
    wrong = np.count_nonzero(found != expected)
    assert wrong <= (0 if quality >= 90 and shape is ellipse else 0.02 * expected.sum())


@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("suffix", ["jpg", "webp"])
def test_lossy_files_of_gray_or_color_and_of_any_name(
    tmp_path: Path, suffix: str, mode: str
) -> None:
    path = tmp_path / f"m.{suffix}"
    ellipse().convert(mode).save(path, quality=95)
    renamed = path.rename(tmp_path / "m.png")
    assert np.array_equal(read_ids(renamed, "binary"), np.asarray(ellipse()) > 127)


def test_a_lossless_webp_holds_ids(tmp_path: Path) -> None:
    ids = regions(1, 2, 3)
    found = read(tmp_path / "m.webp", Image.fromarray(ids), lossless=True)
    assert np.array_equal(found, ids > 0)


def test_an_empty_jpeg_is_empty(tmp_path: Path) -> None:
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        Image.new("L", (64, 48)).save(tmp_path / folder / "a.jpg")
    (problem,) = check_stills(open_stills(tmp_path))
    assert problem.reason == "The mask is empty."


def test_a_jpeg_without_bright_values_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match=r"m\.jpg is a lossy file .* values up to .*as PNG"):
        read(tmp_path / "m.jpg", Image.fromarray(regions(1, 2, 6)))


@pytest.mark.parametrize("kind", ["instances", "parts"])
def test_ids_in_a_jpeg_are_refused(tmp_path: Path, kind: Kind) -> None:
    Image.fromarray(regions(1, 2, 3)).save(tmp_path / "m.jpg")
    with pytest.raises(StremnError, match=r"m\.jpg is a lossy file \(JPEG\).*must be a .*PNG"):
        read_ids(tmp_path / "m.jpg", kind)
