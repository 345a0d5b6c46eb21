"""`stremn evaluate`, `score` and `tables` with the shipped weights on tiny data sets."""

import json
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from stremn.cli.app import app
from stremn.errors import StremnError
from tiny_vos import davis, youtube_vos


@pytest.fixture
def run():
    def invoke(*arguments):
        result = CliRunner().invoke(app, [str(a) for a in arguments], catch_exceptions=True)
        if isinstance(result.exception, StremnError):
            raise result.exception
        return result

    return invoke


@pytest.fixture
def root(tmp_path):
    return davis(tmp_path / "D", {"cat": [1], "dogs": [1, 2]}, count=5)


QUICK = ("--size", 64, "--device", "cpu", "--policy", "oldest", "--slots", 2)


def test_evaluate_then_score_what_it_wrote(run, root, tmp_path):
    out = tmp_path / "out"
    options = ("--root", root, "--year", 2017, "--split", "val")
    result = run("evaluate", "davis", *options, "-o", out, *QUICK)
    assert result.exit_code == 0, result.output
    assert "mean over objects" in result.output
    table = json.loads((out / "scores.json").read_text())
    assert table["protocol"]["policy"] == "oldest"
    assert len(table["protocol"]["weights"]) == 8
    scored = run("score", *options, "--predictions", out)
    assert scored.exit_code == 0, scored.output
    mean = 100 * table["without_postprocessing"]["J&F"]
    assert f"{mean:.1f}" in scored.output


def test_evaluating_a_network_that_is_adapted_to_each_sequence(run, root, tmp_path, monkeypatch):
    monkeypatch.setattr("stremn.training.segmentation.adaptation.SIDE", 64)
    options = ("--root", root, "--year", 2017, "--split", "val", "--sequences", "cat", *QUICK)
    result = run("evaluate", "davis", *options, "-o", tmp_path / "out", "--adapt", 1)
    assert result.exit_code == 0, result.output
    table = json.loads((tmp_path / "out" / "scores.json").read_text())
    assert table["protocol"]["adapt"] == 1
    assert not table["failed"]
    with pytest.raises(StremnError, match="its adapt is 1, now 0"):
        run("evaluate", "davis", *options, "-o", tmp_path / "out")


def test_a_split_without_masks_is_zipped_but_not_scored(run, tmp_path):
    root = davis(tmp_path / "D", {"cat": [1]}, split="test-dev", annotated=["00000"], count=4)
    path = tmp_path / "send.zip"
    options = ("--root", root, "--year", 2017, "--split", "test-dev", "--zip", path)
    result = run("evaluate", "davis", *options, "-o", tmp_path / "out", *QUICK)
    assert result.exit_code == 0, result.output
    assert "No scores: the masks" in result.output
    assert "4 label maps of 1 sequences" in " ".join(result.output.split())
    with zipfile.ZipFile(path) as archive:
        assert len(archive.namelist()) == 4


def test_youtube_vos_with_two_scales(run, tmp_path):
    root = youtube_vos(tmp_path / "Y")
    more = ("--scales", "1.0,1.5", "--flip")
    result = run("evaluate", "youtube-vos", "--root", root, "-o", tmp_path / "out", *QUICK, *more)
    assert result.exit_code == 0, result.output
    protocol = json.loads((tmp_path / "out/scores.json").read_text())["protocol"]
    assert protocol["scales"] == [1.0, 1.5]
    assert protocol["flip"] is True
    assert len(list((tmp_path / "out/abc").glob("*.png"))) == 6


def test_tables_rules(run, root, tmp_path):
    options = ("--root", root, "--year", 2017, "--split", "val", "--size", 64, "--device", "cpu")
    chosen = ("--policies", "oldest,learned", "--slots", 2)
    result = run("tables", "rules", *options, *chosen, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "(A) remove oldest" in result.output
    table = json.loads((tmp_path / "out/rules.json").read_text())
    assert [row["policy"] for row in table["suites"]["short"]] == ["oldest", "learned"]
    assert (tmp_path / "out/rules.md").read_text().startswith("# ")


def test_tables_slots_on_another_layout_and_suite(run, root, tmp_path):
    plain = tmp_path / "plain"
    plain.mkdir()
    for kind in ("JPEGImages", "Annotations"):
        (root / kind / "480p").rename(plain / kind)
    options = ("--root", plain, "--data", "folders", "--size", 64, "--device", "cpu")
    chosen = ("--policy", "oldest", "--numbers", "2,3", "--suite", "long,occlusion")
    small = ("--frames", 12, "--gaps", "3", "--positions", "0.4", "--reach", 0.75)
    result = run("tables", "slots", *options, *chosen, *small, "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    assert "3 frames at 0.4" in result.output
    assert "J of each hundred frames" in result.output
    table = json.loads((tmp_path / "out/slots.json").read_text())
    assert {protocol["reach"] for protocol in table["protocol"].values()} == {0.75}


def without_times(value):
    """Scores as they are in files, without how long they took."""
    if isinstance(value, dict):
        return {k: without_times(v) for k, v in value.items() if "second" not in k}
    return [without_times(v) for v in value] if isinstance(value, list) else value


@pytest.fixture
def colored(root):
    """The data set with objects that can be seen: orange and green squares on dark blue."""
    for path in (root / "JPEGImages" / "480p").rglob("*.jpg"):
        labels = np.asarray(Image.open(str(path).replace("JPEGImages", "Annotations")[:-3] + "png"))
        colors = np.array([(20, 30, 90), (240, 150, 30), (60, 200, 80)], np.uint8)
        Image.fromarray(colors[labels]).save(path, quality=95)
    return root


@pytest.fixture
def one_thread():
    """The workers' number of threads, of which the last bits of a sum may depend."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def scored(out):
    masks = {
        str(path.relative_to(out)): np.asarray(Image.open(path)).tolist()
        for path in sorted(out.rglob("*.png"))
    }
    return without_times(json.loads((out / "scores.json").read_text())), masks


@pytest.mark.slow
def test_several_workers_score_as_one_does(run, colored, tmp_path, monkeypatch, one_thread):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("os.cpu_count", lambda: 2)  # a thread for each of two workers
    options = ("--root", colored, "--year", 2017, "--split", "val", *QUICK)
    one, two = tmp_path / "one", tmp_path / "two"
    assert run("evaluate", "davis", *options, "-o", one).exit_code == 0
    result = run("evaluate", "davis", *options, "-o", two, "--workers", 2)
    assert result.exit_code == 0, result.output
    assert "cat: done" in result.output
    assert "dogs: 5 frames" not in result.output, "nothing is left for this process"
    assert scored(two) == scored(one)
    assert scored(one)[0]["without_postprocessing"]["J&F"] > 0.3
    assert json.loads((two / ".scores/jobs/dogs/job.json").read_text())["status"] == "done"
    again = run("evaluate", "davis", *options, "-o", two, "--workers", 2)
    assert "cat: done" not in again.output, "what is finished is never run again"


@pytest.mark.slow
def test_a_table_by_several_workers_is_the_same(run, colored, tmp_path, monkeypatch, one_thread):
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    options = ("--root", colored, "--year", 2017, "--split", "val", "--size", 64, "--device", "cpu")
    chosen = ("--policies", "oldest", "--slots", 2, "--suite", "occlusion", "--gaps", "3")
    one, two = tmp_path / "one", tmp_path / "two"
    assert run("tables", "rules", *options, *chosen, "-o", one).exit_code == 0
    result = run("tables", "rules", *options, *chosen, "-o", two, "--workers", 2)
    assert result.exit_code == 0, result.output
    assert result.output.count(": done") == 2
    tables = [json.loads((out / "rules.json").read_text()) for out in (one, two)]
    assert without_times(tables[0]) == without_times(tables[1])
    assert tables[0]["suites"]["occlusion"][0]["J"]["mean"] > 0.1


def test_what_a_worker_leaves_is_done_here(run, root, tmp_path, monkeypatch):
    from stremn.batch.processes import Processes

    monkeypatch.setattr(Processes, "run", lambda self, tasks: (yield list(tasks)))
    options = ("--root", root, "--year", 2017, "--split", "val", *QUICK)
    result = run("evaluate", "davis", *options, "-o", tmp_path / "out", "--workers", 2)
    assert result.exit_code == 0, result.output
    assert "cat: not done by its worker" in result.output
    assert "cat: 5 frames" in result.output
    table = json.loads((tmp_path / "out/scores.json").read_text())
    assert not table["failed"]


def test_a_zip_that_no_server_takes_is_refused_before_any_work(run, root, tmp_path, monkeypatch):
    def never(*_, **__):
        raise AssertionError("worked in vain")

    monkeypatch.setattr("stremn.evaluation.segmentation.evaluation.evaluate", never)
    monkeypatch.setattr("stremn.evaluation.segmentation.stored_masks.score_predictions", never)
    send = ("--zip", tmp_path / "send.zip")
    hidden = davis(tmp_path / "H", {"cat": [1], "cow": [1]}, split="test-dev", annotated=["00000"])
    some = ("--root", hidden, "--year", 2017, "--split", "test-dev", "--sequences", "cat", *send)
    public = ("--root", root, "--year", 2017, "--split", "val", *send)
    for options, message in (
        (some, "--zip cannot be used with --sequences: a server expects all .* only cat would be"),
        (public, "DAVIS 2017 val has no server to submit to"),
    ):
        with pytest.raises(StremnError, match=message):
            run("evaluate", "davis", *options, "-o", tmp_path / "out")
        with pytest.raises(StremnError, match=message):
            run("score", *options, "--predictions", tmp_path)
    assert not (tmp_path / "send.zip").exists()


@pytest.mark.parametrize(
    "words",
    ["score --root R --predictions P --workers", "bench --quick --parts flat -o O --threads"],
    ids=["score", "bench"],
)
def test_fewer_than_one_worker_or_thread_is_refused(run, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    for number in (0, -1):
        ended = run(*words.split(), number)
        assert ended.exit_code == 2, ended.exception
        assert words.split()[-1] in ended.output
    assert not list(tmp_path.iterdir())


def test_mistakes_end_in_a_sentence(run, root, tmp_path):
    options = ("--root", root, "--year", 2017, "--split", "val", "-o", tmp_path / "out")
    with pytest.raises(StremnError, match="no sequence 'cow'"):
        run("evaluate", "davis", *options, "--sequences", "cow")
    for numbers in ("big", "1,nan", "1,inf", ""):
        with pytest.raises(StremnError, match="numbers separated by commas, got"):
            run("evaluate", "davis", *options, "--scales", numbers)
    with pytest.raises(StremnError, match=r"whole numbers separated by commas, got '2\.5,3'"):
        run("tables", "slots", *options, "--numbers", "2.5,3")
    with pytest.raises(StremnError, match="no suite 'hard'"):
        run("tables", "rules", *options, "--suite", "hard")


@pytest.mark.parametrize("adapt", [0, 2])
def test_a_wrong_option_is_found_before_any_sequence(run, root, tmp_path, monkeypatch, adapt):
    def never(*_, **__):
        raise AssertionError("adapted in vain")

    monkeypatch.setattr("stremn.training.segmentation.adaptation.fit", never)
    options = ("--root", root, "--year", 2017, "--split", "val", "-o", tmp_path / "out")
    for wrong, message in (
        (("--policy", "evidnce"), "There is no policy 'evidnce'"),
        (("--slots", 0), "memory_slots"),
        (("--scales", "0"), "Scales must be positive"),
    ):
        with pytest.raises(StremnError, match=message):
            run("evaluate", "davis", *options, "--adapt", adapt, *wrong)
    assert not (tmp_path / "out").exists()
