"""The page with a SAM model: marks go to the model itself, runs are followed and gone on with."""

import threading
import time
from pathlib import Path

import pytest

pytest.importorskip("transformers")

from moving_disc import BOX, FRAMES, write_clip
from stremn.errors import StremnError
from stremn.sam.finding import SamFinder
from stremn.sam.opening import video_model
from stremn.segmentation.opening import Asked
from stremn.web.options import Options, offered
from stremn.web.project import Project, Tools
from tiny_sam import tiny_sam

OPTIONS = Options(memory_slots=3, policy="oldest")


def ended(project: Project, stage: str) -> None:
    while project.status.running:
        time.sleep(0.05)
    assert project.status.stage == stage, project.status


def test_a_run_is_marked_followed_and_gone_on_with(tmp_path: Path) -> None:
    tiny_sam().save_pretrained(tmp_path / "model")
    model = video_model(str(tmp_path / "model"))
    find = model.finder(Asked(device="cpu"))
    assert isinstance(find, SamFinder)
    tools = Tools(find=lambda: find, model=lambda: model, turn=threading.Lock(), device="cpu")
    project = Project(write_clip(tmp_path / "clip.mp4"), tmp_path / "work", tools, most=1000)
    project.mark(0, 1, BOX)
    assert (project.labels(0) == 1).any()
    project.follow(OPTIONS.model_copy(update={"end": 4}))
    ended(project, "done")
    project.follow(OPTIONS)  # from the saved session on
    ended(project, "done")
    assert project.work.followed() == [(0, FRAMES)]
    for refused, words in (({"size": 300}, "--size cannot"), ({"adapt": True}, "a SAM model")):
        with pytest.raises(StremnError, match=words):
            project.follow(OPTIONS.model_copy(update=refused))
    project.close()


def test_the_page_starts_with_the_models_settings(tmp_path: Path) -> None:
    tiny_sam().save_pretrained(tmp_path / "model")
    told = offered(video_model(str(tmp_path / "model")), "cpu")
    assert told["policies"] == [
        "oldest", "evidence", "learned", "random-select", "spread", "most-similar"
    ]  # fmt: skip
    assert (told["memory_slots"], told["size"], told["adapts"]) == (7, None, False)
