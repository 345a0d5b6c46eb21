"""A source of a segmentation recipe has only keys that its kind of clip uses."""

from pathlib import Path
from typing import Any

import pytest

from stremn.errors import StremnError
from stremn.training.segmentation.data import clip_parameters, open_data
from stremn.training.segmentation.recipe import DataSection, SourceSection

KEYS: dict[str, Any] = {"stills": ["mine"], "videos": ["film"], "gaps": [[0.0, 5]]}
USED = {
    "stills": {"stills"},
    "rendered": {"stills"},
    "videos": {"videos", "gaps"},
    "composed": {"stills", "videos", "gaps"},
}


def section(kind: str, *keys: str) -> SourceSection:
    return SourceSection(kind=kind, **{key: KEYS[key] for key in keys})  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", USED)
@pytest.mark.parametrize("key", KEYS)
def test_a_key_that_the_kind_does_not_use_is_refused(kind: str, key: str) -> None:
    source = section(kind, *sorted(USED[kind] | {key}))
    if key in USED[kind]:
        clip_parameters(source, "some")
        return
    message = rf'data\.sources\.some has {key}, but kind = "{kind}" uses only .*Remove {key}'
    with pytest.raises(StremnError, match=message):
        clip_parameters(source, "some")


def test_all_of_them_are_named_together() -> None:
    with pytest.raises(StremnError, match=r"has videos and gaps, but .* uses only stills"):
        clip_parameters(section("rendered", "stills", "videos", "gaps"), "some")


def test_empty_keys_are_none() -> None:
    clip_parameters(SourceSection(kind="stills", stills=("mine",), videos=()), "some")


@pytest.mark.parametrize("check", [True, False])
def test_nothing_is_read_for_a_key_that_is_not_used(tmp_path: Path, check: bool) -> None:
    data = DataSection.model_validate(
        {
            "stills": {"mine": {"path": str(tmp_path / "none")}},
            "videos": {"film": {"path": str(tmp_path / "none")}},
            "sources": {
                "wrong": {"kind": "stills", "stills": ["mine"], "videos": ["film"]},
                "other": {"kind": "videos", "stills": ["mine"], "videos": ["film"]},
            },
        }
    )
    with pytest.raises(StremnError, match=r"data\.sources\.wrong has videos, but"):
        open_data(data, ["wrong"], check=check)
    with pytest.raises(StremnError, match=r"data\.sources\.other has stills, but"):
        open_data(data, ["other"], check=check)
