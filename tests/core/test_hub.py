"""Hub ids: how they are read, and which state of a repository they stand for."""

from pathlib import Path

import huggingface_hub.constants
import pytest

from hub_cache import put
from stremn.core.hub import UNREACHABLE, HubModel
from stremn.errors import StremnError

OLD, NEW = "a" * 40, "b" * 40


def test_names_are_read() -> None:
    assert HubModel.parse("owner/name") == HubModel("owner/name")
    assert HubModel.parse("owner/name@v1.0") == HubModel("owner/name", "v1.0")
    assert HubModel.parse(f"owner/name@{OLD}") == HubModel("owner/name", OLD)
    assert HubModel.parse("owner/name@refs/pr/3") == HubModel("owner/name", "refs/pr/3")
    for other in ("small", "a/b/c", "./a/b", "../a", "/a", "~/a", "a@b", ""):
        assert HubModel.parse(other) is None


@pytest.mark.parametrize("revision", ["", "../../x", "a/../b", "/x", "-x", "a b", "a\n", "v1@v2"])
def test_what_is_no_revision_is_refused(revision: str) -> None:
    with pytest.raises(StremnError, match=r"is a commit, tag or branch .*owner/name@REVISION"):
        HubModel.parse(f"owner/name@{revision}")


def test_a_revision_stands_for_its_own_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for commit, names in ((OLD, ("v1",)), (NEW, ("main", "v2"))):
        (tmp_path / commit).mkdir()
        (tmp_path / commit / "file").write_text(commit)
        put(tmp_path / "hub", "owner/name", commit, tmp_path / commit, *names)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)

    def got(revision: str | None) -> str:
        return HubModel("owner/name", revision).download("file").read_text()

    assert [got(name) for name in (None, "v1", "v2", OLD, NEW)] == [NEW, OLD, NEW, OLD, NEW]
    for name in ("v3", "c" * 40):
        with pytest.raises(UNREACHABLE):
            got(name)
