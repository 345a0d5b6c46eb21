"""`scripts/training_data.py` lays out data sets from the files of their repositories."""

import json
import runpy
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

SCRIPT = Path(__file__).parents[2] / "scripts" / "training_data.py"
HEIGHT, WIDTH = 40, 60


def picture(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), np.full((HEIGHT, WIDTH, 3), 90, np.uint8))


def run(clones: Path, out: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "argv", [str(SCRIPT), str(clones), str(out)])
    runpy.run_path(str(SCRIPT), run_name="__main__")


def mask_of(out: Path, name: str) -> np.ndarray:
    assert (out / "images" / f"{name}.jpg").exists()
    return np.asarray(Image.open(out / "masks" / f"{name}.png"))


def test_polygons_become_ids_small_objects_on_top(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    cats = tmp_path / "clones" / "feral-cat-segmentation-dataset-and-model" / "set" / "train"
    for copy in "ab":  # two augmented copies of one picture
        picture(cats / "images_1st" / f"cat_jpg.rf.{copy}.jpg")
        label = cats / "labels_1st" / f"cat_jpg.rf.{copy}.txt"
        label.parent.mkdir(exist_ok=True)
        label.write_text("0 0.2 0.25 0.3 0.25 0.3 0.5 0.2 0.5\n0 0.1 0.1 0.8 0.1 0.8 0.9 0.1 0.9\n")
    animals = tmp_path / "clones" / "Applying-Mask-RCNN-in-endangered-animals-detection" / "dataset"
    picture(animals / "train" / "bear.jpg")
    box = [[10, 10, 30, 10, 30, 30, 10, 30], [40, 10, 49, 10, 49, 19, 40, 19]]
    (animals / "train" / "_annotations.coco.json").write_text(
        json.dumps(
            {
                "images": [{"id": 7, "file_name": "bear.jpg"}],
                "annotations": [{"image_id": 7, "segmentation": box}],
            }
        )
    )
    run(tmp_path / "clones", tmp_path / "out", monkeypatch)
    assert len(list((tmp_path / "out" / "still" / "cats" / "images").iterdir())) == 1
    ids = mask_of(tmp_path / "out" / "still" / "cats", "00000")
    assert ids[15, 15] == 2  # the small one lies in the large one
    assert ids[30, 40] == 1
    assert ids[2, 2] == 0
    assert mask_of(tmp_path / "out" / "still" / "animals", "00000").sum() == 21 * 21 + 10 * 10
    said = capsys.readouterr().out
    assert "still/cats: 1 pictures" in said
    assert "still/horses: left out, no clone" in said


def test_sequences_keep_ids_and_void(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cars = tmp_path / "BackgroundSubtractionForMovingCamera" / "moseg_dataset" / "cars1"
    hockey = tmp_path / "FgSegNet" / "UCSD_dataset" / "hockey_" / "hockey"
    for i in (1, 10, 40):
        levels = np.zeros((HEIGHT, WIDTH), np.uint8)
        levels[:, :20], levels[:, 20:40], levels[0, 59] = 51, 204, 102  # 102: a speck
        picture(cars / f"cars1_{i:02d}.jpg")
        cv2.imwrite(str(cars / f"cars1_{i:02d}.pgm"), levels)
        levels[:, :20], levels[:, 20:40] = 255, 170
        picture(hockey / "in" / f"frame_{i}.jpg")
        (hockey / "groundtruth").mkdir(exist_ok=True)
        cv2.imwrite(str(hockey / "groundtruth" / f"gt{i:04d}.png"), levels)
    run(tmp_path, tmp_path / "out", monkeypatch)
    for name, sequence, values in (
        ("motion", "cars1", [0, 1, 2]),
        ("subtraction", "hockey", [0, 1, 255]),
    ):
        files = sorted((tmp_path / "out" / "video" / name / "Annotations" / sequence).iterdir())
        assert [file.name for file in files] == ["00000.png", "00001.png", "00002.png"]
        assert np.unique(np.asarray(Image.open(files[0]))).tolist() == values
