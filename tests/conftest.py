"""Shared by all tests: annotations are checked at run time, and a tiny segmentation model."""

import os

# Workers share the cores: with all of them each, threads wait for one another (ten times slower).
if workers := os.environ.get("PYTEST_XDIST_WORKER_COUNT"):
    threads = max(1, (os.cpu_count() or 1) // int(workers))
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))  # before torch, and for subprocesses

from jaxtyping import install_import_hook

install_import_hook("stremn", "type_checks.checked")  # before anything imports the package

from collections.abc import Iterator  # noqa: E402
from pathlib import Path  # noqa: E402

import jaxtyping  # noqa: E402
import pytest  # noqa: E402
import torch  # noqa: E402

from stremn.networks.model import STReMN  # noqa: E402
from stremn.networks.presets import SegmentationConfig  # noqa: E402
from tiny_model import tiny_config, tiny_model  # noqa: E402


@pytest.fixture(autouse=True)
def seeded() -> None:
    """Every test starts from the same random state."""
    torch.manual_seed(0)


@pytest.fixture
def real_data() -> Path:
    """Folder of real data. Without one the test is skipped; with one that is not there it fails."""
    if "STREMN_DATA" not in os.environ:
        pytest.skip("needs real data: STREMN_DATA names its folder")
    folder = Path(os.environ["STREMN_DATA"])
    assert folder.is_dir(), f"STREMN_DATA names {folder}, which is no folder"
    return folder


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Annotations are not checked: for input that the package itself must refuse in a sentence."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture(scope="session")
def config() -> SegmentationConfig:
    """Configuration of the tiny model."""
    return tiny_config()


@pytest.fixture(params=[False, True], ids=["slots", "slots and summary"])
def model(request: pytest.FixtureRequest) -> STReMN:
    """A tiny segmentation model with random weights whose masks move from frame to frame.

    Once as in the paper, and once with a summary of each object, as `small` has.
    """
    return tiny_model(summary=request.param)
