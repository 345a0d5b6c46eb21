"""`stremn segment` with a folder of transformers."""

import json
from collections.abc import Callable
from pathlib import Path

import huggingface_hub.constants
import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

pytest.importorskip("transformers")

from hub_cache import put
from stremn.cli.app import app
from stremn.core.weights import fingerprint
from stremn.errors import StremnError
from stremn.sam.models import load_sam
from stremn.sam.opening import is_sam, video_model
from stremn.segmentation.opening import Asked, OwnModel
from tiny_sam import noisy_square, square_mask, tiny_sam
from tiny_vos import davis

Run = Callable[..., Path]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six frames, a mask of the first, a correction of the fourth, and a model."""
    made = tmp_path_factory.mktemp("sam")
    for name in ("frames", "masks"):
        (made / name).mkdir()
    for frame in range(6):
        Image.fromarray(noisy_square(frame)).save(made / "frames" / f"{frame:05d}.png")
    for frame in (0, 3):
        Image.fromarray(square_mask(frame, 3)).save(made / "masks" / f"{frame:05d}.png")
    tiny_sam().save_pretrained(made / "model")
    return made


@pytest.fixture
def run(folder: Path, tmp_path: Path) -> Run:
    """Segment the frames with the model and return the output folder."""

    def go(out: str, *options: str) -> Path:
        plain = ["segment", str(folder / "frames"), "--model", str(folder / "model")]
        plain += ["--device", "cpu", "--precision", "float32", "-o", str(tmp_path / out)]
        done = CliRunner().invoke(app, [*plain, *options])
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        assert done.exit_code == 0, done.output
        return tmp_path / out

    return go


def mask(out: Path, frame: int) -> np.ndarray:
    return np.array(Image.open(out / "masks" / f"{frame:05d}.png"))


def slots(out: Path) -> list[list[int | None]]:
    rows = json.loads((out / "memory.json").read_text(encoding="utf-8"))
    return [next(iter(row["objects"].values()))["slots"] for row in rows]


def test_masks_corrections_and_resuming(folder: Path, run: Run) -> None:
    given = "--mask", str(folder / "masks"), "--probabilities"
    whole = run("whole", *given)
    np.testing.assert_array_equal(mask(whole, 0) == 3, square_mask(0, 3) == 3)
    np.testing.assert_array_equal(mask(whole, 3) == 3, square_mask(3, 3) == 3)
    assert slots(whole)[5] == [0, 1, 2, 3, 4, 5, None]
    assert (whole / "overlay.mp4").is_file()
    run("parts", *given, "--limit", "2")
    parts = run("parts", *given, "--resume")
    for frame in range(6):
        name = f"probabilities/{frame:05d}.npz"
        with np.load(whole / name) as one, np.load(parts / name) as other:
            for key in one:
                np.testing.assert_array_equal(one[key], other[key])
    assert (whole / "memory.json").read_bytes() == (parts / "memory.json").read_bytes()


def test_slots_and_rules_are_chosen(folder: Path, run: Run) -> None:
    first = "--mask", str(folder / "masks" / "00000.png")
    assert slots(run("two", *first, "--slots", "2"))[5] == [0, 5]
    assert slots(run("first", *first, "--slots", "3", "--policy", "newest"))[5] == [0, 1, 5]


def test_boxes_and_clicks_go_to_the_model_itself(folder: Path, run: Run) -> None:
    from stremn.media.finding import Click
    from stremn.media.prompts import Box

    find = video_model(str(folder / "model")).finder(Asked(device="cpu", precision="float32"))
    assert find is not None
    clicks = [Click(70, 5, False)]
    expected = find(noisy_square(0), box=Box(4, 12, 20, 20), clicks=clicks)
    boxed = run("box", "--box", "4,12,20,20", "--exclude", "70,5")
    np.testing.assert_array_equal(mask(boxed, 0) == 1, expected)
    both = run("object", "--object", "id=5 box=4,12,20,20 off=70,5")
    np.testing.assert_array_equal(mask(both, 0) == 5, expected)
    colors = run("colors", "--box", "4,12,20,20", "--prompt-model", "grabcut")
    assert (mask(colors, 0) != mask(boxed, 0)).any()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (("--size", "300"), "--size cannot be used: a SAM model sees every frame at a size"),
        (("--reach", "0.5"), "--reach cannot be used: a SAM model always reads the whole"),
        (("--every", "2"), "--every cannot be used: a SAM model remembers every frame"),
        (("--adapt", "5"), "is a SAM model, and only this package's own networks can be adapted"),
        (("--policy", "append"), "'append' keeps all and needs a memory that grows"),
        (("--policy", "best"), "There is no policy 'best'"),
        (("--slots", "0"), "memory_slots"),
        (("--precision", "float8"), "float8"),
    ],
)
def test_what_a_sam_model_cannot_honour_is_refused(
    run: Run, tmp_path: Path, options: tuple[str, ...], words: str
) -> None:
    with pytest.raises(StremnError, match=words):
        run("out", "--box", "4,12,20,20", *options)
    assert not (tmp_path / "out").exists()


def test_a_run_of_another_model_is_not_gone_on_with(folder: Path, run: Run, tmp_path: Path) -> None:
    given = "--mask", str(folder / "masks")
    out = run("out", *given, "--limit", "2")
    tiny_sam(seed=1).save_pretrained(tmp_path / "other")
    plain = ["segment", str(folder / "frames"), "--device", "cpu", "-o", str(out), "--resume"]
    other = [*plain, *given, "--precision", "float32", "--model", str(tmp_path / "other")]
    assert "model" in str(CliRunner().invoke(app, other).exception)


def test_names_are_told_apart(tmp_path: Path, folder: Path) -> None:
    assert is_sam(str(folder / "model"))
    for name in ("small", "stm", "model.safetensors", "./a/b", "a/b/c", str(tmp_path)):
        assert not is_sam(name)
        assert isinstance(video_model(name), OwnModel)
    (tmp_path / "config.json").write_text("[]", encoding="utf-8")
    assert not is_sam(str(tmp_path))
    (tmp_path / "config.json").write_text('{"model_type": "sam2_video"}', encoding="utf-8")
    with pytest.raises(StremnError, match=r"The weights of .* cannot be read"):
        video_model(str(tmp_path)).finder(Asked(device="cpu"))


def test_a_revision_of_the_hub_is_loaded(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, new = "a" * 40, "b" * 40
    tiny_sam(seed=1).save_pretrained(tmp_path / "new")
    put(tmp_path / "hub", "someone/sam", old, folder / "model", "v1")
    put(tmp_path / "hub", "someone/sam", new, tmp_path / "new", "main")
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def marks(source: str) -> int:
        assert is_sam(source)
        return fingerprint(load_sam(source).network)

    first, second = (fingerprint(load_sam(p).network) for p in (folder / "model", tmp_path / "new"))
    assert marks("someone/sam") == second != first
    assert marks("someone/sam@v1") == marks(f"someone/sam@{old}") == first
    assert not is_sam("someone/sam@v2")
    with pytest.raises(StremnError, match="There is no model 'someone/sam@v2'"):
        load_sam("someone/sam@v2")


def test_pickled_weights_are_not_read(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_bytes((folder / "model" / "config.json").read_bytes())
    torch.save(tiny_sam().state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(StremnError, match=r"The weights of .* cannot be read .*safetensors"):
        load_sam(tmp_path)


def test_evaluate_scores_a_sam_model(folder: Path, tmp_path: Path) -> None:
    root = davis(tmp_path / "data", {"cow": (1, 2)}, count=3)
    plain = ["evaluate", "davis", "--root", str(root), "--year", "2017", "--device", "cpu"]
    plain += ["--model", str(folder / "model"), "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(app, plain)
    assert done.exit_code == 0, done.output
    protocol = json.loads((tmp_path / "out" / "scores.json").read_text("utf-8"))["protocol"]
    assert (protocol["policy"], protocol["memory_slots"], protocol["size"]) == ("oldest", 7, 64)
    for option in (["--scales", "1.0,1.3"], ["--flip"], ["--size", "300"], ["--adapt", "2"]):
        refused = CliRunner().invoke(app, [*plain, *option])
        assert isinstance(refused.exception, StremnError)
        assert "SAM model" in str(refused.exception)
