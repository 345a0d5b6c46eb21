"""Models in a hub's cache, as `huggingface_hub` lays them out: downloads without a network."""

import shutil
from pathlib import Path


def put(cache: Path, name: str, commit: str, content: Path, *names: str) -> None:
    """Put a folder's files there as a commit of `owner/name`; tags or branches lead to it."""
    repository = cache / f"models--{name.replace('/', '--')}"
    shutil.copytree(content, repository / "snapshots" / commit)
    (repository / "refs").mkdir(exist_ok=True)
    for reference in names:
        (repository / "refs" / reference).write_text(commit, encoding="utf-8")
