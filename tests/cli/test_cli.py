"""The command line as users meet it: real verbs, shipped weights, tiny videos."""

import inspect
import json
import math
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import stremn
from stremn.cli import panels
from stremn.cli.app import app, main
from stremn.cli.evaluate import evaluate_app
from stremn.cli.options import asked
from stremn.cli.segment import segment
from stremn.core.signals import stopping_signals
from stremn.errors import StremnError
from stremn.media.masks import write_mask
from stremn.media.video import open_frames
from stremn.networks.defaults import PAPER, SHIPPED, SessionDefaults
from stremn.segmentation.opening import Asked, OwnModel
from stremn.segmentation.sessions import SegmentationSession
from stremn.web.options import Options

FRAMES, HEIGHT, WIDTH = 8, 96, 128


def picture(t: int) -> np.ndarray:
    """A disc that moves right over a gradient."""
    image = (
        np.linspace(30, 120, WIDTH, dtype=np.uint8)[None, :, None].repeat(HEIGHT, 0).repeat(3, 2)
    )
    image = np.ascontiguousarray(image)
    cv2.circle(image, (40 + 4 * t, 50), 18, (230, 60, 40), -1)
    return image


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    """A folder of frames."""
    folder = tmp_path / "frames"
    folder.mkdir()
    for t in range(FRAMES):
        Image.fromarray(picture(t)).save(folder / f"shot {t}.png")
    return folder


@pytest.fixture
def mask(tmp_path: Path) -> Path:
    """The mask of the first frame; the disc has id 7."""
    labels = np.zeros((HEIGHT, WIDTH), np.uint8)
    cv2.circle(labels, (40, 50), 18, 7, -1)
    write_mask(tmp_path / "mask.png", labels)
    return tmp_path / "mask.png"


def run(*arguments: object) -> str:
    """Run the command line; a StremnError comes out as it is."""
    result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == 0, result.output
    return result.output


def labels_in(out: Path) -> list[np.ndarray]:
    found = []
    for path in sorted((out / "masks").glob("*.png")):
        with Image.open(path) as image:
            found.append(np.asarray(image))
    return found


def test_segment_follows_a_disc_and_writes_everything(clip, mask, tmp_path):
    out = tmp_path / "out"
    run("segment", clip, "--mask", mask, "-o", out, "--device", "cpu")
    names = [path.name for path in sorted((out / "masks").glob("*.png"))]
    assert names == [f"shot {t}.png" for t in range(FRAMES)]
    for t, labels in enumerate(labels_in(out)):
        assert labels.shape == (HEIGHT, WIDTH)
        assert set(np.unique(labels)) <= {0, 7}
        truth = np.zeros((HEIGHT, WIDTH), np.uint8)
        cv2.circle(truth, (40 + 4 * t, 50), 18, 1, -1)
        overlap = ((labels == 7) & (truth == 1)).sum() / ((labels == 7) | (truth == 1)).sum()
        assert overlap > 0.6, f"frame {t}: {overlap:.2f}"
    rows = json.loads((out / "memory.json").read_text())
    assert [row["frame"] for row in rows] == list(range(FRAMES))
    assert rows[0]["objects"]["7"]["slots"] == [0, None, None, None, None, None]
    last = [t for t in rows[-1]["objects"]["7"]["slots"] if t is not None]
    assert max(last) == (FRAMES - 1) // SHIPPED.every * SHIPPED.every
    assert len({row["bytes"] for row in rows}) == 1
    assert (out / "overlay.mp4").stat().st_size > 0
    with Image.open(out / "memory.png") as strip:
        assert strip.width > 6 * 100


def test_resumed_run_equals_uninterrupted_one(clip, mask, tmp_path):
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run("segment", clip, "--mask", mask, "-o", whole, "--slots", 3)
    broken = clip / "shot 5.png"
    content = broken.read_bytes()
    broken.write_bytes(content[: len(content) // 2])
    with pytest.raises(StremnError, match="shot 5"):
        run("segment", clip, "--mask", mask, "-o", parts, "--slots", 3)
    assert len(labels_in(parts)) == 5
    broken.write_bytes(content)
    run("segment", clip, "--mask", mask, "-o", parts, "--slots", 3, "--resume")
    for first, second in zip(labels_in(whole), labels_in(parts), strict=True):
        np.testing.assert_array_equal(first, second)
    assert (whole / "memory.json").read_bytes() == (parts / "memory.json").read_bytes()
    assert (whole / "memory.png").read_bytes() == (parts / "memory.png").read_bytes()
    assert (whole / "overlay.mp4").read_bytes() == (parts / "overlay.mp4").read_bytes()


@pytest.fixture
def not_under_nohup():
    """SIGHUP as a terminal's programs have it, also where the tests run under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


def test_an_ignored_hang_up_stays_ignored(not_under_nohup):
    assert signal.SIGHUP in stopping_signals()
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    assert stopping_signals() == (signal.SIGINT, signal.SIGTERM)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_run_goes_on_where_it_stopped(
    clip, mask, tmp_path, monkeypatch, number, not_under_nohup
):
    step = SegmentationSession.step

    def stopped_in_the_middle(self, *arguments):
        if self.frame == 3:
            os.kill(os.getpid(), number)
        return step(self, *arguments)

    out = tmp_path / "out"
    monkeypatch.setattr(SegmentationSession, "step", stopped_in_the_middle)
    result = CliRunner().invoke(app, ["segment", str(clip), "--mask", str(mask), "-o", str(out)])
    assert result.exit_code != 0
    assert "5 frames are in" in result.output.replace("\n", "")
    assert list((out / ".resume").glob("state-000000005*"))
    monkeypatch.undo()
    run("segment", clip, "--mask", mask, "-o", out, "--resume")
    assert len(labels_in(out)) == FRAMES


def test_a_trial_of_some_frames_can_be_continued(clip, mask, tmp_path):
    trial, whole = tmp_path / "trial", tmp_path / "whole"
    run("segment", clip, "--mask", mask, "-o", trial, "--limit", 3)
    assert len(labels_in(trial)) == 3
    run("segment", clip, "--mask", mask, "-o", trial, "--resume")
    run("segment", clip, "--mask", mask, "-o", whole)
    assert len(labels_in(trial)) == FRAMES
    for one, other in zip(labels_in(trial), labels_in(whole), strict=True):
        assert np.array_equal(one, other)
    assert (trial / "memory.json").read_text() == (whole / "memory.json").read_text()
    assert not list((trial / ".resume").glob("state-*"))


def test_a_limit_that_is_reached_already_changes_nothing(clip, mask, tmp_path):
    out = tmp_path / "out"
    run("segment", clip, "--mask", mask, "-o", out, "--limit", 3)
    before = {p: p.read_bytes() for p in out.rglob("*") if p.is_file()}
    for limit in (2, 3):
        text = run("segment", clip, "--mask", mask, "-o", out, "--resume", "--limit", limit)
        assert "already holds 3 frames. --limit counts from the first frame of the run" in text
    assert {p: p.read_bytes() for p in out.rglob("*") if p.is_file()} == before
    run("segment", clip, "--mask", mask, "-o", out, "--resume")
    assert len(labels_in(out)) == FRAMES


def test_a_run_with_nothing_left_to_do_keeps_its_strip(clip, mask, tmp_path):
    out = tmp_path / "out"
    run("segment", clip, "--mask", mask, "-o", out, "--limit", FRAMES)
    strip = (out / "memory.png").read_bytes()
    text = run("segment", clip, "--mask", mask, "-o", out, "--resume")
    assert "0 frames" in text
    assert (out / "memory.png").read_bytes() == strip
    assert "already holds the finished run" in run(
        "segment", clip, "--mask", mask, "-o", out, "--resume"
    )


@pytest.mark.parametrize("verb", ["train", "segment"])
def test_a_missing_extra_is_told_before_anything(verb, tmp_path, monkeypatch):
    monkeypatch.setattr("stremn.training.processes.find_spec", lambda name: None)
    options = {"train": (), "segment": ("--adapt", 2)}[verb]
    with pytest.raises(StremnError, match=r'pip install "stremn\[train\]"'):
        run(verb, tmp_path / "not-there", *options, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_adapted_weights_are_kept_and_taken_again(clip, mask, tmp_path, monkeypatch):
    monkeypatch.setattr("stremn.training.segmentation.adaptation.SIDE", 64)
    out, again = tmp_path / "out", tmp_path / "again"
    options = ("--mask", mask, "--device", "cpu", "--size", 64)
    text = run("segment", clip, *options, "-o", out, "--adapt", 2, "--limit", 3)
    assert "adapting" in text
    assert "2/2" in text
    weights = (out / "adapted.safetensors").read_bytes()
    with pytest.raises(StremnError, match="made with adapt 2, now adapt is None"):
        run("segment", clip, *options, "-o", out, "--resume")
    text = run("segment", clip, *options, "-o", out, "--adapt", 2, "--resume")
    assert "adapting" not in text
    assert (out / "adapted.safetensors").read_bytes() == weights
    assert len(labels_in(out)) == FRAMES
    run("segment", clip, *options, "-o", again, "--model", out / "adapted.safetensors")
    for one, other in zip(labels_in(out), labels_in(again), strict=True):
        assert np.array_equal(one, other)
    adapted = out / "adapted.safetensors"
    run("segment", clip, *options, "-o", out, "--model", adapted, "--overwrite")
    assert adapted.read_bytes() == weights


@pytest.mark.parametrize(
    ("option", "value", "message"),
    [
        ("--policy", "nosuch", "There is no policy 'nosuch'"),
        ("--device", "abacus", "device 'abacus' cannot be used"),
        ("--precision", "f8", "Unknown precision 'f8'"),
        ("--slots", 0, "memory_slots"),
    ],
)
def test_a_wrong_option_is_found_before_anything_is_adapted(
    clip, mask, tmp_path, monkeypatch, option, value, message
):
    def never(*_, **__):
        raise AssertionError("adapted in vain")

    monkeypatch.setattr("stremn.training.segmentation.adaptation.fit", never)
    with pytest.raises(StremnError, match=message):
        run("segment", clip, "--mask", mask, "-o", tmp_path / "out", "--adapt", 2, option, value)


def test_a_camera_does_not_wait_for_an_adaptation(clip, mask, tmp_path, monkeypatch):
    def camera(source, **_):
        frames = open_frames(Path(source))
        frames.live = True
        return frames

    monkeypatch.setattr("stremn.media.video.open_frames", camera)
    with pytest.raises(StremnError, match=r"--adapt does not work on a live source \("):
        run("segment", clip, "--mask", mask, "-o", tmp_path / "out", "--adapt", 2)


def test_earlier_run_is_not_overwritten_unasked(clip, mask, tmp_path):
    out = tmp_path / "out"
    run("segment", clip, "--mask", mask, "-o", out, "--limit", 2)
    with pytest.raises(StremnError, match="--overwrite"):
        run("segment", clip, "--mask", mask, "-o", out)
    run("segment", clip, "--mask", mask, "-o", out, "--overwrite", "--limit", 3)
    assert len(labels_in(out)) == 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--mask", "nowhere.png"], "no mask file"),
        ([], "Say which object to follow: --mask FILE"),
        (["--box", "1,2,30,40", "--click", "4,5"], "got --box and --click together"),
        (["--reach", "-1"], "0 or more, in object sizes, or inf; got -1"),
        (["--reach", "nan"], "0 or more, in object sizes, or inf; got nan"),
        (["--exclude", "4,5"], "--exclude goes with --box or --click"),
        (["--box", "1,2,3"], "four numbers"),
        (["--slots", "0"], "at least 1, got 0"),
        (["--policy", "clever"], "no policy 'clever'"),
        (["--model", "huge.safetensors"], "no weights file"),
        (["--size", "8"], "at least 64"),
        (["--device", "abacus"], "cannot be used"),
        (["--precision", "double"], "Unknown precision 'double'"),
        (["--model", "smal"], "no hub id, which reads owner/name"),
        (["--opacity", "1.5"], "0 .nothing filled. to 1, got 1.5"),
    ],
)
def test_bad_options_get_one_sentence(clip, mask, tmp_path, options, message):
    given = (
        options if not options or options[0] in ("--mask", "--box") else ["--mask", mask, *options]
    )
    with pytest.raises(StremnError, match=message):
        run("segment", clip, *given, "-o", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_mistake_in_the_mask_comes_before_any_work(clip, mask, tmp_path):
    out = tmp_path / "out"
    Image.fromarray(np.zeros((HEIGHT, WIDTH), np.uint8)).save(tmp_path / "empty.png")
    for wrong in (
        ["--mask", tmp_path / "empty.png"],
        ["--click", "1000,4"],
        ["--box", "500,500,9,9"],
    ):
        with pytest.raises(StremnError, match=r"holds no object|outside the frame|no part inside"):
            run("segment", clip, *wrong, "-o", out)
    assert not out.exists()


def test_an_inverted_mask_is_followed_with_a_warning(clip, mask, tmp_path, caplog):
    inverted = np.full((HEIGHT, WIDTH), 255, np.uint8)
    cv2.circle(inverted, (40, 50), 18, 0, -1)
    Image.fromarray(inverted).save(tmp_path / "inverted.png")
    run("segment", clip, "--mask", mask, "-o", tmp_path / "a", "--limit", 1)
    assert "swapped" not in caplog.text
    run("segment", clip, "--mask", tmp_path / "inverted.png", "-o", tmp_path / "b", "--limit", 1)
    assert "are object and background swapped?" in caplog.text


def test_used_up_memory_and_a_polite_kill_end_in_one_sentence(monkeypatch, capsys):
    def main_with(error: BaseException) -> tuple[object, str]:
        def fails() -> None:
            raise error

        monkeypatch.setattr("stremn.cli.app.app", fails)
        with pytest.raises(SystemExit) as ended:
            main()
        return ended.value.code, capsys.readouterr().err

    code, said = main_with(RuntimeError("DefaultCPUAllocator: can't allocate memory: 9 bytes"))
    assert (code, "Out of memory" in said) == (2, True)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        main_with(RuntimeError("a mistake of ours"))

    def killed() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    monkeypatch.setattr("stremn.cli.app.app", killed)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 130
    assert capsys.readouterr().err == "Interrupted.\n"  # nothing is promised to be on the disk


def test_missing_input_names_the_path(mask, tmp_path):
    with pytest.raises(StremnError, match=r"gone\.mp4"):
        run("segment", tmp_path / "gone.mp4", "--mask", mask)


def test_errors_end_without_traceback_and_with_code_2(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "stremn.cli", "segment", "gone.mp4", "--mask", "x.png"],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "Error:" in done.stderr
    assert "Traceback" not in done.stderr


def test_check_mask_reports_and_repairs(tmp_path):
    soft = np.zeros((240, 320), np.uint8)
    cv2.circle(soft, (150, 120), 70, 255, -1)
    soft = cv2.GaussianBlur(soft, (7, 7), 0)
    Image.fromarray(soft).save(tmp_path / "soft.png")
    result = CliRunner().invoke(app, ["check-mask", str(tmp_path / "soft.png")])
    assert result.exit_code == 1
    assert "repair" in result.output
    run("check-mask", tmp_path / "soft.png", "-o", tmp_path / "hard.png")
    assert set(np.unique(np.asarray(Image.open(tmp_path / "hard.png")))) == {0, 1}


def test_check_mask_resizes_to_a_video(clip, tmp_path):
    small = np.zeros((HEIGHT // 2, WIDTH // 2), np.uint8)
    small[5:20, 5:20] = 255
    Image.fromarray(small).save(tmp_path / "small.png")
    result = CliRunner().invoke(
        app, ["check-mask", str(tmp_path / "small.png"), "--frame", str(clip)]
    )
    assert result.exit_code == 1
    assert f"--frame {clip} -o repaired.png" in result.output.replace("\n", "")
    run("check-mask", tmp_path / "small.png", "--frame", clip, "-o", tmp_path / "right.png")
    assert np.asarray(Image.open(tmp_path / "right.png")).shape == (HEIGHT, WIDTH)


def test_every_verb_and_the_page_use_the_shipped_settings():
    left_to_the_model = ("slots", "policy", "reach", "size", "every")
    evaluate = next(c.callback for c in evaluate_app.registered_commands if c.name == "davis")
    for verb in (segment, evaluate):
        parameters = inspect.signature(verb).parameters
        assert all(parameters[name].default is None for name in left_to_the_model)
    told = OwnModel("small").settled(Asked())
    assert (
        SessionDefaults(told.memory_slots, told.policy, told.size, told.reach, told.every)
        == SHIPPED
    )
    assert asked("small", None, None, None) == SHIPPED
    assert asked("small", 240, math.inf, 3) == replace(SHIPPED, size=240, reach=None, every=3)
    assert OwnModel("small").settled(Options().asked("auto")) == told
    opened = SegmentationSession.from_pretrained("small", device="cpu")
    bare = SegmentationSession(opened.model, device="cpu")  # memorizes as in the paper
    for session, every in ((opened, SHIPPED.every), (bare, PAPER.every)):
        settings = {name: getattr(session, name) for name in ("memory_slots", "size", "reach")}
        told = SessionDefaults(policy=session.policy_name, every=session.every, **settings)
        assert told == replace(SHIPPED, every=every)


def test_help_comes_without_loading_the_network():
    began = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "stremn.cli", "--help"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert time.perf_counter() - began < 20
    loaded = {line.rpartition("|")[2].strip() for line in done.stderr.splitlines()}
    assert not loaded & {"torch", "timm", "cv2", "av", "numpy"}


@pytest.mark.parametrize(
    "verb",
    ["segment", "demo", "check-mask", "web", "predict", "train", "evaluate", "tables", "bench",
     "analyze", "export"],
)  # fmt: skip
def test_every_verb_explains_itself(verb):
    assert "Usage" in run(verb, "--help")


def test_help_says_what_is_in_brackets():
    assert "<sequence>/<frame>.png" in " ".join(run("score", "--help").replace("│", " ").split())


def test_the_version_is_told_by_both_names_of_the_program():
    for module in ("stremn", "stremn.cli"):
        told = subprocess.run(
            [sys.executable, "-m", module, "--version"], capture_output=True, text=True, check=True
        )
        assert told.stdout == f"stremn {stremn.__version__}\n"


def test_help_lists_the_verbs_in_groups():
    told = run("--help")
    places = [told.index(group) for group in (panels.FOLLOW, panels.MEASURE, panels.TRAIN)]
    assert places == sorted(places)
    assert told.index(" segment ") < places[1] < told.index(" evaluate ")


def test_a_run_names_every_file_and_logs_where_there_is_no_terminal(
    clip, mask, tmp_path, monkeypatch
):
    monkeypatch.setattr("stremn.cli.terminal._LogLines.seconds", 0.0)
    out = tmp_path / "out"
    told = run("segment", clip, "--mask", mask, "-o", out, "--coco", "--probabilities")
    for name in ("masks", "overlay.mp4", "probabilities", "objects.json", "memory.json"):
        assert str(out / name) in told
    assert f"3 of {FRAMES} frames" in told
