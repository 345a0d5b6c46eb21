"""Verbs that are killed at random moments and run again, compared byte by byte.

`python tests/kills_of_verbs.py --runs 20` is a long campaign; the tests make a short one. Runs are
forked from a process that has imported everything, so that a kill hits the work and not the start.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kills import make_clip
from made_data import write_digits
from stremn.prediction.weights import save_predictor
from tiny_predictor import tiny
from tiny_vos import davis, write_frame

FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(
    ["torch", "stremn.cli.app", "stremn.segmentation.pipeline", "stremn.study.tables",
     "stremn.training.fit", "stremn.training.prediction.recipes",
     "stremn.batch.runs", "kills_of_verbs"]
)  # fmt: skip
TIMES = frozenset({"seconds", "frames_per_second", "seconds_per_step", "data_wait", "attempts"})
"""What runs do not have in common: how long they took, and how often they were begun."""

LOG = "log.txt"  # of a job: what was said, and when

RECIPE = """
task = "prediction"
batch = 2
model = {{ preset = "32-small", fields = {{ size = 16, widths = [8, 8, 8, 8, 8, 8], \
strides = [2, 1, 2, 1, 1, 1], key = 6, value = 8, update_key = 6 }} }}
data = {{ kind = "moving-digits", path = "{digits}", size = 16, side = 8 }}
horizon = {{ observed = 5, future = 2 }}
validation = {{ clips = 4, average = 2 }}

[train]
steps = 6
optimizer = "adam"
lr = 2e-3
checkpoint_every = 1
validate_every = 2
monitor = "ssim"
log_every = 1
tensorboard = false
device = "cpu"
"""

JOBS = """name,video,mask,size,slots,device,precision,coco
one,segment/clip,segment/mask.png,64,3,cpu,float32,yes
two,segment/clip,segment/mask.png,64,2,cpu,float32,no
"""


def verbs(folder: Path) -> dict[str, list[str]]:
    """Make small data; return the arguments of each verb, `-o FOLDER` left out."""
    davis(folder / "davis", {"a": [1], "b": [1, 2]}, count=5)
    for t in range(8):
        write_frame(folder / "videos" / "test" / "one" / f"{t}.png", t, (16, 16))
    save_predictor(tiny(), folder / "tiny.safetensors")
    digits = write_digits(folder / "digits")
    (folder / "recipe.toml").write_text(RECIPE.format(digits=digits.as_posix()), encoding="utf-8")
    data = f"--root {folder}/davis --year 2017 --size 64 --device cpu"
    (folder / "clip").mkdir()
    clip, weights = folder / "videos" / "test" / "one", folder / "tiny.safetensors"
    lines = {
        "predict": f"predict {clip} --observe 4 --frames 6 --weights {weights} --device cpu",
        "evaluate": f"evaluate davis {data} --split val --precision float32",
        "evaluate prediction": (
            f"evaluate prediction folder --root {folder}/videos --weights {weights} --observed 4 "
            "--future 3 --size 16 --device cpu --clips 2"
        ),
        "tables": f"tables rules {data} --policies oldest,random-drop --seeds 0,1 --sequences a",
        "train": f"train {folder}/recipe.toml --resume",
    }
    made = {name: line.split() for name, line in lines.items()}
    (folder / "segment").mkdir()
    made["segment"] = [*make_clip(folder / "segment", 30), "--resume"]
    (folder / "jobs.csv").write_text(JOBS, encoding="utf-8")
    made["batch"] = ["batch", f"{folder}/jobs.csv", "--workers", "2"]
    return made


def contents(out: Path) -> dict[str, Any]:
    """All files of a folder; of tables, all but times."""
    return {str(p.relative_to(out)): _content(p) for p in _files(out)}


def _files(out: Path) -> list[Path]:
    return [p for p in out.rglob("*") if p.is_file() and p.name != LOG]


def _content(path: Path) -> Any:
    content = path.read_bytes()
    if path.suffix == ".json":
        return _without_times(json.loads(content))
    if path.name in ("log.csv", "validation.csv"):
        rows = csv.DictReader(io.StringIO(content.decode()))
        return [{k: v for k, v in row.items() if k not in TIMES} for row in rows]
    return content


def _without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {k: _without_times(v) for k, v in value.items() if k not in TIMES}
    return [_without_times(v) for v in value] if isinstance(value, list) else value


def run_verb(words: list[str], said: Path) -> None:
    """Body of the forked process: the command line with its output in a file."""
    from stremn.cli import main

    with said.open("w", encoding="utf-8") as stream:
        os.dup2(stream.fileno(), 1)
        os.dup2(stream.fileno(), 2)
    sys.argv = ["stremn", *words]
    main()


def start(words: list[str], out: Path) -> Any:
    """Fork a run."""
    said = out.with_name(f"{out.name}.txt")
    process = FORKS.Process(target=run_verb, args=([*words, "-o", str(out)], said))
    process.start()
    return process


def finished(words: list[str], out: Path) -> float:
    """Run to the end; return the seconds that it took."""
    began = time.monotonic()
    process = start(words, out)
    process.join()
    assert process.exitcode == 0, out.with_name(f"{out.name}.txt").read_text(encoding="utf-8")
    return time.monotonic() - began


def killed(words: list[str], out: Path, delay: float) -> bool:
    """Start a run and kill it after `delay` seconds; False if it was at its end before."""
    process = start(words, out)
    process.join(delay)
    ended = process.exitcode is not None
    if not ended:
        os.kill(process.pid, signal.SIGKILL)
        process.join()
    if out.is_dir():
        check_whole(out)
    return not ended


def check_whole(out: Path) -> None:
    """Raise unless each file of a killed run can be read: none is half written."""
    for path in out.rglob("*"):
        if path.name.startswith(".stremn-") or not path.is_file():
            continue
        check = CHECKS.get(path.suffix)
        if check is not None and ".resume" not in path.parts:
            check(path)


def _picture(path: Path) -> None:
    from PIL import Image

    with Image.open(path) as image:
        image.load()


def _tensors(path: Path) -> None:
    from stremn.core.checkpoints import read_tensors

    read_tensors(path, "file")


def _json(path: Path) -> None:
    json.loads(path.read_bytes())


CHECKS: dict[str, Callable[[Path], None]] = {
    ".png": _picture, ".safetensors": _tensors, ".json": _json
}  # fmt: skip


def main() -> None:
    """Run a campaign and print what was killed and what came out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=20, help="of each verb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one verb, by name")
    asked = parser.parse_args()
    rng = np.random.default_rng(asked.seed)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for verb, words in verbs(folder).items():
            if asked.only in (None, verb):
                campaign(verb, words, folder, asked.runs, rng)


def campaign(
    verb: str, words: list[str], folder: Path, runs: int, rng: np.random.Generator
) -> None:
    """Kill and complete a verb's runs, and print how many were not as they should be."""
    finished(words, folder / f"{verb}-first")  # the very first one is slower
    whole = folder / f"{verb}-whole"
    seconds = finished(words, whole)
    expected, kills, different = contents(whole), 0, 0
    for run in range(runs):
        out = folder / f"{verb}-{run}"
        for delay in rng.uniform(0, seconds, int(rng.integers(1, 4))):
            kills += killed(words, out, float(delay))
        finished(words, out)
        different += contents(out) != expected
    print(
        f"{verb}: {runs} runs of {seconds:.1f} s, {kills} kills, {different} different", flush=True
    )


if __name__ == "__main__":
    main()
