"""Every verb with STM's and STCN's networks, as `stremn convert` writes them."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from click.testing import Result
from typer.testing import CliRunner

from stremn.cli.app import app
from stremn.errors import StremnError
from stremn.networks.presets import PRESETS, build_model
from stremn.networks.pretrained import Pretrained
from stremn.segmentation.opening import OwnModel
from stremn.web.options import offered
from tiny_vos import davis

Run = Callable[..., Result]


@pytest.fixture(scope="module", params=("stm", "stcn"))
def weights(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of full size, with random weights."""
    path = tmp_path_factory.mktemp("weights") / f"{request.param}.safetensors"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = PRESETS[request.param]
        Pretrained(build_model(config).eval(), config).save(path)
    return path


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return davis(tmp_path / "D", {"dogs": [1, 2]}, count=4)


@pytest.fixture
def run(root: Path, weights: Path) -> Run:
    def invoke(*arguments: object, data: bool = True) -> Result:
        where = ("--root", root, "--year", 2017, "--split", "val") if data else ()
        common = (*where, "--model", weights)
        done = CliRunner().invoke(app, [str(a) for a in (*arguments, *common)])
        if isinstance(done.exception, StremnError):
            raise done.exception
        assert done.exit_code == 0, done.output
        return done

    return invoke


SMALL = ("--size", 64, "--device", "cpu")


def test_evaluate_with_the_authors_settings(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert "mean over objects" in run("evaluate", "davis", *SMALL, "-o", out).output
    protocol = json.loads((out / "scores.json").read_text("utf-8"))["protocol"]
    assert (protocol["every"], protocol["reach"], protocol["policy"]) == (5, None, "evidence")


def test_tables(run: Run, tmp_path: Path) -> None:
    chosen = ("--policies", "oldest,learned", "--slots", 2, "--seeds", "0")
    assert "remove oldest" in run("tables", "rules", *SMALL, *chosen, "-o", tmp_path / "r").output
    run("tables", "slots", *SMALL, "--numbers", "2,3", "-o", tmp_path / "s")
    with pytest.raises(StremnError, match="fus"):
        run("tables", "fusion", *SMALL, "--slots", 2, "-o", tmp_path / "f")


def test_analyze(run: Run, tmp_path: Path) -> None:
    run("analyze", "davis", *SMALL, "--slots", "2", "-o", tmp_path / "figures")
    assert list((tmp_path / "figures").glob("*.png"))


@pytest.mark.usefixtures("unchecked")  # the exporter traces with its own tensors
def test_export(run: Run, tmp_path: Path) -> None:
    path = tmp_path / "step.pt2"
    run("export", path, "--height", 64, "--width", 64, "--slots", 2, data=False)
    assert path.is_file()


def test_the_page_starts_with_the_models_size(weights: Path) -> None:
    told = offered(OwnModel(str(weights)), "cpu")
    assert (told["size"], told["memory_slots"], told["adapts"]) == (480, 6, True)
