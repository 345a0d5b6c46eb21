"""Many videos: what is refused before the first job, and what happens to jobs that do not end."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import cv2
import numpy as np
import pytest
import typer
from counted_jobs import attempts, tasks
from PIL import Image
from typer.testing import CliRunner

from stremn.batch.attempts import Task
from stremn.batch.cluster import Cluster, send_token
from stremn.batch.jobs import jobs_of_folder, read_jobs, with_options
from stremn.batch.processes import Processes
from stremn.batch.reports import REPORT, Report, frames_done, read_report
from stremn.batch.runs import left, run_tasks
from stremn.cli.app import app
from stremn.cli.batch import segment_job
from stremn.core.atomic_files import FolderLock
from stremn.errors import MissingExtraError, StremnError
from stremn.media.masks import write_mask

FAST = {"device": "cpu", "precision": "float32", "size": "64", "slots": "2"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three videos of three frames, as folders of images, and a mask of each first frame."""
    for number, name in enumerate(("a", "b", "c d")):
        (tmp_path / "videos" / name).mkdir(parents=True)
        for index in range(3):
            image = np.full((48, 64, 3), 70, np.uint8)
            cv2.circle(image, (25 + 2 * index, 24), 10 + number, (230, 60, 40), -1)
            Image.fromarray(image).save(tmp_path / "videos" / name / f"{index:05d}.png")
        labels = np.zeros((48, 64), np.uint8)
        cv2.circle(labels, (25, 24), 10 + number, 1, -1)
        (tmp_path / "masks").mkdir(exist_ok=True)
        write_mask(tmp_path / "masks" / f"{name}.png", labels)
    return tmp_path


def table(folder: Path, text: str) -> Path:
    path = folder / "jobs.csv"
    path.write_text(text, encoding="utf-8")
    return path


# ---------------------------------------------------------------- jobs


def test_rows_become_arguments(folder: Path) -> None:
    with pytest.raises(StremnError, match=r"jobs\.csv, line 2 has more cells"):
        read_jobs(table(folder, "video,mask\nvideos/a,masks/a.png,3\n"))
    one, two, three = read_jobs(table(folder, TABLE))
    video, mask = str(folder / "videos" / "a"), str(folder / "masks" / "a.png")
    assert one.arguments(FLAGS) == [
        video, "--mask", mask, "--slots", "4", "--coco", "--format", "yolo", "--format", "cut-out",
    ]  # fmt: skip
    assert two.arguments(FLAGS)[1:] == ["--box", "1,2,3,4", "--no-outline"]
    assert three.name == "c d"
    assert three.arguments()[1:] == ["--object", "id=2 box=1,2,3,4", "--object", "id=3 on=5,6"]
    [job] = with_options([one], {"slots": "9", "size": "240"})
    assert job.options["slots"] == "4"
    assert job.options["size"] == "240"
    marked, boxed = with_options([one, two], {"mask": "other.png", "--box": "5,6,7,8"})
    assert marked.arguments()[1:5] == ["--mask", mask, "--box", "5,6,7,8"]
    assert boxed.arguments()[1:5] == ["--mask", "other.png", "--box", "1,2,3,4"]


FLAGS = {"coco": ("--coco", None), "outline": ("--outline", "--no-outline")}
TABLE = """name,video,mask,box,object,slots,coco,outline,format
one, videos/a , masks/a.png,,,4,yes,,yolo; cut-out

two,videos/b,,"1,2,3,4",,,no,no,
,videos/c d,,,"id=2 box=1,2,3,4; id=3 on=5,6",,,,
"""


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"has no column video\."),
        ("mask,slots\n", r"has no column video\. .* it has mask, slots\."),
        ("video,slots\nvideos/a,2\n", "needs at least one of the columns mask, box"),
        ("video,mask,mask\n", "has the column 'mask' twice"),
        ("video,mask\n", "holds no job"),
        ("video,mask\n,masks/a.png\n", "line 2 has no video"),
        ("video,mask\nvideos/a,\n", "line 2 marks no object"),
        ("video,mask\nvideos/a,masks/a.png\nz.mp4,masks/a.png\n", "line 3: there is no video .*z"),
        ("video,mask\nvideos/a,masks/z.png\n", r"line 2: there is no mask .*z\.png"),
        ("video,mask\nvideos/a,masks/a.png\nvideos/a,masks/b.png\n", "2 jobs called a"),
        (f"video,mask\n{'x' * 300},masks/a.png\n", "is no path of a video: .*File name too long"),
        ("video,mask\n~nobody-here/a,masks/a.png\n", "is no path of a video: .*home directory"),
        ("name,video,mask\n../x,videos/a,masks/a.png\n", "line 2: name: .* which '../x' is not"),
    ],
)  # fmt: skip
def test_a_table_with_a_mistake_is_refused(folder: Path, text: str, message: str) -> None:
    with pytest.raises(StremnError, match=message):
        read_jobs(table(folder, text))


def test_a_table_that_is_none(folder: Path) -> None:
    with pytest.raises(StremnError, match="cannot be read: No such file"):
        read_jobs(folder / "none.csv")
    (folder / "jobs.csv").write_bytes(b"video,mask\n\xff\xfe")
    with pytest.raises(StremnError, match="not a table in UTF-8"):
        read_jobs(folder / "jobs.csv")


def test_a_folder_of_videos_with_masks_of_the_same_names(folder: Path) -> None:
    jobs = jobs_of_folder(folder / "videos", folder / "masks")
    assert [job.name for job in jobs] == ["a", "b", "c d"]
    assert jobs[2].mask == str(folder / "masks" / "c d.png")
    (folder / "masks" / "b.png").unlink()
    with pytest.raises(StremnError, match=r"b has no mask in .*; expected one, such as b\.png"):
        jobs_of_folder(folder / "videos", folder / "masks")
    with pytest.raises(StremnError, match="There is no folder"):
        jobs_of_folder(folder / "nowhere", folder / "masks")
    shutil.rmtree(folder / "videos" / "b")
    (folder / "videos" / "a.mp4").touch()
    with pytest.raises(StremnError, match=r"2 jobs called a, .* of its own: rename one"):
        jobs_of_folder(folder / "videos", folder / "masks")


@pytest.mark.parametrize(
    ("columns", "cells", "message"),
    [
        ("slot", "4", "Job a: No such option: --slot"),
        ("slots", "many", "Job a: Invalid value for '--slots'"),
        ("overwrite", "yes", "Job a: overwrite cannot be set for a single job"),
        ("coco", "perhaps", "Job a: coco must be yes or no, got 'perhaps'"),
    ],
)
def test_options_are_checked_before_the_first_job(
    folder: Path, columns: str, cells: str, message: str
) -> None:
    path = table(folder, f"video,mask,{columns}\nvideos/a,masks/a.png,{cells}\n")
    with pytest.raises(StremnError, match=message):
        run("batch", path, "-o", folder / "out")
    assert not (folder / "out").exists()


def run(*arguments: object) -> str:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return f"{result.output}\nexit {result.exit_code}"


# ---------------------------------------------------------------- attempts


class Here:
    """A worker in this process."""

    def run(self, tasks: Sequence[Task]) -> Generator[list[Task]]:
        for task in tasks:
            with suppress(StremnError):
                task.attempt()
            yield [task]


def test_reports_say_how_it_went_and_what_is_done_is_not_done_again(tmp_path: Path) -> None:
    planned = tasks(tmp_path, "well", "fail-1", "break")
    ended: list[str] = []
    outcome = run_tasks(planned, Here(), lambda some: ended.extend(task.name for task in some))
    assert ended == ["job0", "job1", "job2"]
    assert [report.status for report in outcome.reports] == ["done", "failed", "failed"]
    assert [report.error for report in outcome.failed] == ["It cannot be.", "ValueError: broken"]
    assert "Traceback" in (planned[2].folder / "log.txt").read_text()
    assert (planned[0].folder / "log.txt").read_text() == "told\n"
    assert [task.name for task in left(planned)] == ["job1", "job2"]
    outcome = run_tasks(planned, Here(), lambda some: None)
    assert outcome.before == ("job0",)
    assert [report.status for report in outcome.reports] == ["done", "done", "failed"]
    assert [report.attempts for report in outcome.reports] == [1, 2, 2]
    assert [attempts(task) for task in planned] == [1, 2, 2]


def test_a_job_whose_folder_cannot_be_written_has_failed(tmp_path: Path) -> None:
    planned = tasks(tmp_path, "well", "well")
    planned[0].folder.symlink_to(tmp_path / "nowhere" / "else")
    outcome = run_tasks(planned, Here(), lambda some: None)
    assert [report.status for report in outcome.reports] == ["failed", "done"]
    assert "Nothing could be written into" in outcome.failed[0].error


def test_a_log_that_cannot_be_written_is_the_jobs_error(tmp_path: Path) -> None:
    [task] = tasks(tmp_path, "well")
    (task.folder / "log.txt").mkdir(parents=True)
    with pytest.raises(StremnError, match=r"The job job0 failed: IsADirectoryError: .*log\.txt"):
        task.attempt()
    report = read_report(task.folder)
    assert report is not None
    assert report.error.startswith("IsADirectoryError")


def test_a_job_with_other_options_is_refused(tmp_path: Path) -> None:
    run_tasks(tasks(tmp_path, "well"), Here(), lambda some: None)
    with pytest.raises(StremnError, match="holds the job job0 with other options: well"):
        left(tasks(tmp_path, "other"))


def test_a_damaged_report_is_told(tmp_path: Path) -> None:
    (tmp_path / "job0").mkdir()
    (tmp_path / "job0" / REPORT).write_text("{}")
    with pytest.raises(StremnError, match=r"job\.json: The key 'name' is missing"):
        left(tasks(tmp_path, "well"))


def test_frames_are_counted_from_the_record(tmp_path: Path) -> None:
    assert frames_done(tmp_path) == 0
    rows = [json.dumps({"frame": 40 + i, "name": "x"}) for i in range(3)]
    (tmp_path / "memory.json").write_text("[\n" + ",\n".join(rows) + "\n]\n")
    assert frames_done(tmp_path) == 3
    for damaged in ("[\n]\n", '[\n5,\n{"frame": 2}', '[\n{"frame": 1},\n{"frame": 1e999}'):
        (tmp_path / "memory.json").write_text(damaged)
        assert frames_done(tmp_path) == 0


def test_a_worker_that_a_killed_batch_left_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [task] = tasks(tmp_path, "well")
    task.folder.mkdir()
    held, looks = FolderLock(task.folder), []

    def sleep(seconds: float) -> None:
        looks.append(list(task.folder.glob("attempts")))
        if len(looks) == 3:
            held.release()

    monkeypatch.setattr("stremn.batch.attempts.time.sleep", sleep)
    task.attempt()
    assert looks == [[], [], []]
    assert attempts(task) == 1


def test_a_folder_that_another_run_keeps_fails_the_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    [task] = tasks(tmp_path, "well")
    task.folder.mkdir()
    monkeypatch.setattr("stremn.batch.attempts._GRACE", 0.0)
    with (
        FolderLock(task.folder),
        pytest.raises(StremnError, match=r"Another run is writing into .*job0"),
    ):
        task.attempt()
    report = read_report(task.folder)
    assert report is not None
    assert (report.status, report.error[:15]) == ("failed", "Another run is ")


# ---------------------------------------------------------------- processes


def test_processes_try_again_what_fails_or_dies(tmp_path: Path) -> None:
    planned = tasks(tmp_path, "well", "fail-1", "die-1", "fail")
    outcome = run_tasks(planned, Processes(workers=2, retries=1), lambda some: None)
    assert [report.status for report in outcome.reports] == ["done", "done", "done", "failed"]
    assert [attempts(task) for task in planned] == [1, 2, 2, 2]


def test_a_process_that_dies_is_reported(tmp_path: Path) -> None:
    [report] = run_tasks(tasks(tmp_path, "die-1"), Processes(retries=0), lambda some: None).reports
    assert (report.status, report.error) == ("failed", "Its process ended with code -9.")


@pytest.fixture(params=["in the foreground", "in the background"])
def interrupts(request: pytest.FixtureRequest) -> Iterator[None]:
    """Take or ignore SIGINT, as a shell starts a process with or without `&`."""
    background = request.param == "in the background"
    before = signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, signal.SIG_IGN if background else signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupts")
def test_an_interrupted_run_stops_its_jobs_and_can_go_on(tmp_path: Path) -> None:
    planned = tasks(tmp_path, "wait", "well")

    def interrupt(ended: Sequence[Task]) -> None:
        if (tmp_path / "job0" / "attempts").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tasks(planned, Processes(workers=1), interrupt)
    first, second = (read_report(task.folder) for task in planned)
    assert first is not None
    assert first.status == "stopped"
    assert second is None
    (tmp_path / "job0" / "go").touch()
    outcome = run_tasks(planned, Processes(workers=1), lambda some: None)
    assert [report.status for report in outcome.reports] == ["done", "done"]


@pytest.mark.usefixtures("interrupts")
def test_a_job_that_is_interrupted_while_its_process_starts_does_not_begin(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("stremn.batch.processes._TICK", 0.05)  # a process takes longer to start
    [task] = tasks(tmp_path, "well")

    def interrupt(ended: Sequence[Task]) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tasks([task], Processes(), interrupt)
    assert read_report(task.folder) is None
    assert not task.folder.exists()


@pytest.mark.parametrize("where", ["nowhere", "in a file", "in the environment"])
def test_a_token_of_ray_is_sent_if_there_is_one(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)
    if where == "in a file":
        (tmp_path / ".ray").mkdir()
        (tmp_path / ".ray" / "auth_token").write_text("secret")
    if where == "in the environment":
        monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    send_token()
    assert os.environ.get("RAY_AUTH_MODE") == (None if where == "nowhere" else "token")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    send_token()
    assert os.environ["RAY_AUTH_MODE"] == "disabled", "what the user says stays"


# ---------------------------------------------------------------- the whole


def test_a_batch_from_beginning_to_end(folder: Path) -> None:
    out = folder / "out"
    options = [word for name, value in FAST.items() for word in ("--option", f"{name}={value}")]
    (folder / "videos" / "b" / "00001.png").write_bytes(b"damaged")
    source = (folder / "videos", "--masks", folder / "masks")
    told = run("batch", *source, "-o", out, "--retries", "0", *options)
    assert "2 of 3 jobs are done" in told
    assert "exit 1" in told
    assert "b failed after 1 attempts: The image" in " ".join(told.split())
    for name in ("a", "c d"):
        assert len(list((out / name / "masks").iterdir())) == 3
        assert (out / name / "overlay.mp4").exists()
        report = Report.model_validate_json((out / name / REPORT).read_bytes())
        assert (report.status, report.frames, report.attempts) == ("done", 3, 1)
    before = (out / "a" / "overlay.mp4").stat().st_mtime_ns
    mended = (folder / "videos" / "b" / "00000.png").read_bytes()
    (folder / "videos" / "b" / "00001.png").write_bytes(mended)
    told = run("batch", *source, "-o", out, *options)
    assert "3 jobs, 2 of them done before" in told
    assert "3 of 3 jobs are done" in told
    assert "exit 0" in told
    assert (out / "a" / "overlay.mp4").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    ("ending", "raised", "status"),
    [
        (KeyboardInterrupt(), KeyboardInterrupt, "stopped"),
        (typer.Abort(), KeyboardInterrupt, "stopped"),
        (typer.Exit(3), StremnError, "failed"),
    ],
)
def test_a_job_that_did_not_come_to_its_end_is_not_done(
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    ending: BaseException,
    raised: type[BaseException],
    status: str,
) -> None:
    def end(*_: object, **__: object) -> None:
        raise ending

    monkeypatch.setattr("stremn.segmentation.pipeline.segment_video", end)
    [job] = read_jobs(table(folder, "video,mask,device\nvideos/a,masks/a.png,cpu\n"))
    task = Task("a", tuple(job.arguments()), folder / "out" / "a", segment_job)
    with pytest.raises(raised):
        task.attempt()
    report = read_report(task.folder)
    assert report is not None
    assert report.status == status


def test_what_does_not_go_together(folder: Path) -> None:
    path = table(folder, "video,mask\nvideos/a,masks/a.png\n")
    with pytest.raises(StremnError, match="--masks goes with a folder of videos"):
        run("batch", path, "--masks", folder / "masks")
    with pytest.raises(StremnError, match="is a folder of videos: add --masks"):
        run("batch", folder / "videos")
    with pytest.raises(StremnError, match="--option is written \"size=240\", got 'size'"):
        run("batch", path, "--option", "size")


# ---------------------------------------------------------------- Ray


def test_without_ray_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stremn.batch.cluster.find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r'pip install "stremn\[cluster\]"'):
        Cluster()


RAY = """
import sys
from pathlib import Path
sys.path.insert(0, {here!r})
from counted_jobs import tasks
from stremn.batch.cluster import Cluster, send_token
from stremn.batch.runs import run_tasks
from stremn.errors import StremnError
try:
    Cluster("127.0.0.1:1").run(tasks(Path({out!r}), "well")).__next__()
except StremnError as error:
    print(error)
outcome = run_tasks(
    tasks(Path({out!r}), "well", "fail-1", "die-1", "fail"), Cluster("local"), lambda some: None
)
print([report.status for report in outcome.reports])
"""


@pytest.mark.slow
def test_ray_tries_again_what_fails_or_dies(tmp_path: Path) -> None:
    """In a process of its own: Ray leaves open files and threads behind."""
    pytest.importorskip("ray")
    here = str(Path(__file__).parent)
    path = os.pathsep.join([here, *sys.path])
    told = subprocess.run(
        [sys.executable, "-c", RAY.format(here=here, out=str(tmp_path))],
        capture_output=True, text=True, timeout=600, env={**os.environ, "PYTHONPATH": path},
        check=False,
    )  # fmt: skip
    assert told.stdout.splitlines()[-1] == "['done', 'done', 'done', 'failed']", told.stderr
    assert told.stdout.startswith("No Ray cluster answers at 127.0.0.1:1 (")
    assert [attempts(task) for task in tasks(tmp_path, "", "", "", "")] == [1, 2, 2, 2]
