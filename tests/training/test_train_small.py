"""`scripts/train-small`: the recipes of `small`, one after the other."""

import os
import subprocess
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "train-small"

STANDS_IN = """#!/usr/bin/env bash
echo "$@" >> "$CALLS"
while [ $# -gt 0 ]; do [ "$1" != --out ] || out="$2"; shift; done
mkdir -p "$out" && touch "$out/checkpoint.safetensors" "$out/last.safetensors"
echo "${TOLD:-finished} at step 5"
"""
"""Takes the place of the command `stremn`, and notes how it was called."""


def calls(folder: Path, told: str = "finished", code: int = 0) -> list[str]:
    stands_in = folder / "bin" / "stremn"
    stands_in.parent.mkdir(exist_ok=True)
    stands_in.write_text(STANDS_IN)
    stands_in.chmod(0o755)
    log = folder / "calls"
    log.unlink(missing_ok=True)
    path = f"{stands_in.parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "CALLS": str(log), "TOLD": told}
    done = subprocess.run([SCRIPT, folder / "runs"], env=environment, check=False)
    assert done.returncode == code
    return log.read_text().replace(str(folder), "").splitlines()


def test_each_recipe_starts_from_the_one_before_and_goes_on_where_it_stopped(
    tmp_path: Path,
) -> None:
    network = "--set model.fields.similarity=squared-l2"
    assert calls(tmp_path) == [
        f"train small-broad-still {network} --out /runs/small-broad-still",
        f"train small-broad-video {network} "
        "--set model.start=/runs/small-broad-still/last.safetensors --out /runs/small-broad-video",
        f"train small-evidence {network} "
        "--set model.start=/runs/small-broad-video/last.safetensors --out /runs/small-evidence",
    ]
    (tmp_path / "runs/small-evidence/checkpoint.safetensors").unlink()
    assert [" --resume " in call for call in calls(tmp_path)] == [True, True, False]


def test_after_a_run_that_was_stopped_the_next_does_not_begin(tmp_path: Path) -> None:
    assert len(calls(tmp_path, told="interrupted", code=130)) == 1


def test_without_a_folder_it_says_how_it_is_called() -> None:
    done = subprocess.run([SCRIPT], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "scripts/train-small RUNS" in done.stderr
