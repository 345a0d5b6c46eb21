"""The second of two runs into one folder is refused, whatever the verb, and writes nothing."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from stremn.cli.app import app
from stremn.core.atomic_files import FolderLock, output_folder
from stremn.errors import StremnError
from stremn.media.masks import write_mask
from stremn.networks.model import STReMN
from stremn.networks.presets import SegmentationConfig
from stremn.networks.pretrained import Pretrained
from tiny_vos import davis, square_labels, write_frame


def weights(monkeypatch: pytest.MonkeyPatch, model: STReMN, config: SegmentationConfig) -> None:
    """Let every verb run the tiny model."""
    tiny = Pretrained(model, config)
    monkeypatch.setattr("stremn.networks.pretrained.load_model", lambda source: tiny)


@pytest.mark.parametrize(
    "verb",
    [
        "predict {clip} --frames 2",
        "evaluate davis --root {data} --split val --year 2017 --size 64 --device cpu",
        "evaluate prediction folder --root {videos} --observed 2 --future 2 --size 16",
        "tables rules --root {data} --year 2017 --policies oldest --size 64 --device cpu",
        "analyze davis --root {data} --split val --year 2017 --size 64 --slots 2 --device cpu",
        "analyze memory {run}",
        "bench --quick --parts flat",
        "segment {clip} --mask {mask} --size 64 --device cpu",
        "batch {jobs}",
    ],
    ids=lambda verb: " ".join(verb.split()[:2]),
)
def test_the_second_run_is_refused(
    verb: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    model: STReMN,
    config: SegmentationConfig,
) -> None:
    weights(monkeypatch, model, config)
    davis(tmp_path / "data", {"a": [1]})
    for t in range(6):
        write_frame(tmp_path / "clip" / f"{t}.png", t, (64, 64))
        write_frame(tmp_path / "videos" / "test" / "one" / f"{t}.png", t, (16, 16))
    write_mask(tmp_path / "mask.png", square_labels(0, [1], (64, 64)))
    (tmp_path / "jobs").write_text("video,mask\nclip,mask.png\n", encoding="utf-8")
    out = tmp_path / "out"
    out.mkdir()
    places = {name: tmp_path / name for name in ("clip", "data", "videos", "run", "jobs")}
    words = verb.format(**places, mask=tmp_path / "mask.png").split()
    with FolderLock(out):
        ended = CliRunner().invoke(app, [*words, "-o", str(out)])
    assert isinstance(ended.exception, StremnError), ended.output
    assert f"Another run is writing into {out}" in str(ended.exception)
    assert not list(out.iterdir())


def test_a_folder_that_stays_empty_is_not_left_behind(tmp_path: Path) -> None:
    with pytest.raises(StremnError), output_folder(tmp_path / "new"):
        raise StremnError("refused")
    assert not (tmp_path / "new").exists()
    with output_folder(tmp_path / "new"):
        (tmp_path / "new" / "file").touch()
    with output_folder(tmp_path / "new"):
        pass
    assert (tmp_path / "new" / "file").exists()


def test_what_a_killed_run_left_is_removed(tmp_path: Path) -> None:
    (tmp_path / ".stremn-0123456789abcdef.tmp.png").write_bytes(b"half")
    with output_folder(tmp_path):
        assert not list(tmp_path.iterdir())
