"""Formats through the command line: what is written, and what is refused before any work."""

from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from typer.testing import CliRunner

from stremn.cli.app import app
from stremn.errors import StremnError
from stremn.media.formats.choosing import FORMATS
from stremn.media.masks import write_mask

COUNT, HEIGHT, WIDTH = 4, 48, 64


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    folder = tmp_path / "frames"
    folder.mkdir()
    for index in range(COUNT):
        image = np.full((HEIGHT, WIDTH, 3), 70, np.uint8)
        cv2.circle(image, (25 + 2 * index, 24), 12, (230, 60, 40), -1)
        Image.fromarray(image).save(folder / f"shot-{index}.jpg", quality=95)
    labels = np.zeros((HEIGHT, WIDTH), np.uint16)
    cv2.circle(labels, (25, 24), 12, 1, -1)
    write_mask(tmp_path / "first.png", labels)
    write_mask(tmp_path / "wide.png", labels * np.uint16(1500))
    return folder


def run(*arguments: object) -> str:
    options = ["--device", "cpu", "--precision", "float32", "--size", "64", "--slots", "2"]
    return run_plain(*arguments, *options)


def run_plain(*arguments: object) -> str:
    result = CliRunner().invoke(app, [*map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_formats_of_a_run(clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    told = run(
        "segment", clip, "--mask", tmp_path / "first.png", "-o", out, "--names", "1=ball",
        "--coco", "--format", "cut-out", "--format", "yolo",
    )  # fmt: skip
    coco = COCO(out / "objects.json")
    assert [image["file_name"] for image in coco.loadImgs(coco.getImgIds())] == [
        f"shot-{index}.jpg" for index in range(COUNT)
    ]
    assert coco.loadCats([1]) == [{"id": 1, "name": "ball"}]
    alpha = np.array(Image.open(out / "cut-out" / "shot-3.png"))[..., 3]
    labels = np.array(Image.open(out / "masks" / "shot-3.png"))
    assert ((alpha > 127) != (labels > 0)).mean() < 0.02
    assert len(np.unique(alpha)) > 5  # from the probabilities
    for name in ("objects.json", "cut-out", "yolo"):
        assert str(out / name) in told
    assert not (out / "probabilities").exists()
    assert not (out / ".resume" / "formats").exists()
    told = run_plain(
        "reformat", out, "--format", "mots", "--format", "green-screen", "--video", clip
    )
    assert f"{COUNT} frames are in {out / 'mots.txt'}, {out / 'green-screen.mp4'}." in told
    assert len((out / "mots.txt").read_text().splitlines()) == COUNT


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "gif"], r"There is no format 'gif'\. The formats are coco, "),
        (["--format", "coco", "--names", "ball"], 'as "1=cat,2=dog"'),
        (["--names", "1=ball"], "--names goes with a --format that has categories"),
        (["--mask", "wide.png", "--format", "mots"], "ids up to 999, and there is an object 1500"),
    ],
)
def test_what_cannot_be_written_is_found_before_any_work(
    clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    mask = [] if "--mask" in options else ["--mask", "first.png"]
    with pytest.raises(StremnError, match=message):
        run("segment", clip, *mask, "-o", "out", *options)
    assert not (tmp_path / "out").exists()


def test_help_names_every_format() -> None:
    told = "".join(CliRunner().invoke(app, ["segment", "--help"]).output.replace("│", " ").split())
    for name in FORMATS:
        assert name in told
