import zipfile

import numpy as np
import pytest
from PIL import Image
from test_evaluation import RUN, CopyLast

from stremn.data.readers.layouts import read_davis, read_youtube_vos
from stremn.errors import StremnError
from stremn.evaluation.segmentation.evaluation import evaluate
from stremn.evaluation.segmentation.submission import check_submission, write_submission
from tiny_vos import SIZE, davis, names_of, square_labels, write_labels, youtube_vos


@pytest.fixture
def ready(tmp_path):
    root = davis(tmp_path / "D", {"dogs": [1, 2]}, split="test-dev", annotated=["00000"])
    data = read_davis(root, "test-dev")
    evaluate(data, CopyLast, tmp_path / "out", RUN)
    return data, tmp_path / "out", tmp_path / "zips/send.zip"


def test_davis_zip(ready):
    data, out, path = ready
    result = write_submission(data, out, path)
    assert (result.sequences, result.masks) == (1, 6)
    assert result.nbytes == path.stat().st_size
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == [f"dogs/{n}.png" for n in names_of(6)]
        with archive.open("dogs/00004.png") as file, Image.open(file) as image:
            assert image.mode == "P"
            assert np.array_equal(np.asarray(image), square_labels(0, [1, 2]))


def test_youtube_zip_holds_the_submitted_frames(tmp_path):
    data = read_youtube_vos(youtube_vos(tmp_path / "Y"), all_frames=True)
    evaluate(data, CopyLast, tmp_path / "out", RUN)
    assert write_submission(data, tmp_path / "out", tmp_path / "s.zip").masks == 6
    with zipfile.ZipFile(tmp_path / "s.zip") as archive:
        assert "Annotations/abc/00005.png" in archive.namelist()


def test_unfinished_predictions(ready):
    data, out, path = ready
    (out / "dogs/00002.png").unlink()
    with pytest.raises(StremnError, match=r"lacks 1 label maps of DAVIS 2017 .*: dogs/00002\.png"):
        write_submission(data, out, path)


def test_what_a_server_would_refuse(ready):
    data, out, path = ready
    mask = out / "dogs/00002.png"
    write_labels(mask, square_labels(0, [1, 7]))
    with pytest.raises(StremnError, match=r"00002\.png holds ids \[7\]; the objects are \[1, 2\]"):
        write_submission(data, out, path)
    write_labels(mask, np.ones((10, 20), np.uint8))
    with pytest.raises(StremnError, match=f"20x10 pixels but the video is {SIZE[1]}x{SIZE[0]}"):
        write_submission(data, out, path)
    Image.new("RGB", SIZE[::-1]).save(mask)
    with pytest.raises(StremnError, match="is PNG of mode RGB; the server expects"):
        write_submission(data, out, path)


def test_a_refused_zip_is_not_left_and_replaces_none(ready):
    data, out, path = ready
    mask = out / "dogs/00002.png"
    good = mask.read_bytes()
    for earlier in (False, True):
        if earlier:
            mask.write_bytes(good)
            write_submission(data, out, path)
        before = path.read_bytes() if earlier else None
        write_labels(mask, square_labels(0, [1, 7]))
        with pytest.raises(StremnError, match=rf"{path.name}: dogs/00002\.png holds ids \[7\]"):
            write_submission(data, out, path)
        assert [p.name for p in path.parent.iterdir()] == ([path.name] if earlier else [])
        assert (path.read_bytes() if path.exists() else None) == before


def test_a_zip_made_by_something_else(ready):
    data, out, path = ready
    write_submission(data, out, path)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("__MACOSX/._dogs", "")
    with pytest.raises(StremnError, match="holds 1 files that the server does not expect: __MAC"):
        check_submission(data, path)
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(out / "dogs/00000.png", "results/dogs/00000.png")
    with pytest.raises(StremnError, match=r"lacks 6 of 6 label maps: dogs/00000\.png"):
        check_submission(data, path)
    (out / "dogs/00000.png").write_text("no image")
    with pytest.raises(StremnError, match=r"dogs/00000\.png cannot be read as an image"):
        write_submission(data, out, path)
    path.write_text("no zip")
    with pytest.raises(StremnError, match="cannot be read as a zip"):
        check_submission(data, path)


def test_a_set_without_a_server(tmp_path):
    data = read_davis(davis(tmp_path / "D", {"dogs": [1]}))
    with pytest.raises(StremnError, match="val has no server to submit to"):
        check_submission(data, tmp_path / "x.zip")
