"""Random command lines: each must end in a result or in a sentence.

`scripts/with-one-writable-folder python tests/command_lines.py --lines 2000` is a long campaign; it
writes where the lines say, so it must not run without that. The tests make a short one.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import resource
import signal
import sys
import tempfile
import traceback
import warnings
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from kills import make_clip
from kills_of_verbs import verbs

SECONDS = 60
"""A line that takes longer is taken for one that never ends."""

TOKENS = [
    "", " ", "-", "--", "-1", "0", "1e999", "nan", "inf", "2", "1.5", "True", "None", str(2**70),
    "9" * 60, "é" * 200, "x" * 300, "../x", ".", "..", "/", "/dev/null", "/nowhere/x", "a,b", ",",
    "1,2,nan", "*", "[bold]", "%s", "{}", "~", "-o", "--out", "--help", "--size", "--device",
    "cuda:9",     "--policy", "--slots", "--resume", "--overwrite", "--every", "http://", "file:///etc/passwd",
    "concat:a|b", "small", "learned", "bfloat16", "new.png", "new.safetensors", "a=b",
    "train.steps=-1",
]  # fmt: skip


@dataclass
class Outcome:
    """How a campaign went."""

    results: int = 0
    sentences: int = 0
    faults: list[str] = field(default_factory=list)

    @property
    def lines(self) -> int:
        return self.results + self.sentences + len(self.faults)


def lines(folder: Path) -> dict[str, list[str]]:
    """A line of each verb that is right, or nearly, over small data."""
    known = verbs(folder)
    (folder / "more").mkdir()
    clip = make_clip(folder / "more", 3)
    mask, data = folder / "more" / "mask.png", f"--root {folder}/davis --year 2017"
    others = {
        "check-mask": f"check-mask {mask} -o repaired.png",
        "score": f"score {data} --predictions {folder}/davis/Annotations/480p --workers 1",
        "evaluate prompts": f"evaluate prompts {data} --prompt-model none -o prompts",
        "tables slots": f"tables slots {data} --size 64 --numbers 1,2 --device cpu -o slots",
        "tables fusion": f"tables fusion {data} --model small --size 64 --device cpu -o fusion",
        "analyze memory": f"analyze memory {folder}/more -o figures",
        "analyze scores": f"analyze scores {folder}/more -o figures",
        "analyze training": f"analyze training {folder}/more -o figures",
        "bench": "bench --quick --parts none -o bench",
        "export": "export step.onnx --height 17 --width 64",
        "average": f"average {folder}/tiny.safetensors small -o mean.safetensors",
        "convert": f"convert {folder}/tiny.safetensors -o converted.safetensors",
        "train": f"train {folder}/recipe.toml --dry-run",
    }
    with_out = {name: [*words, "-o", "out"] for name, words in known.items()}
    made = with_out | {name: line.split() for name, line in others.items()}
    made["segment"] = [*clip, "-o", "out"]
    return made


def mutated(rng: np.random.Generator, words: list[str], options: list[str]) -> list[str]:
    """Return a line with one to three changes, its verb left as it is."""
    line = list(words)
    for _ in range(int(rng.integers(1, 4))):
        place = int(rng.integers(1, len(line))) if len(line) > 1 else 1
        token = str(rng.choice(TOKENS if rng.random() < 0.7 else options))
        way = rng.integers(5)
        if way == 0 and len(line) > 1:
            del line[place]
        elif way == 1:
            line[place:place] = [token]
        elif way == 2 and len(line) > 1:
            other = int(rng.integers(1, len(line)))
            line[place], line[other] = line[other], line[place]
        elif way == 3:
            line += [token]
        else:
            line[place : place + 1] = [token]
    return line


class NeverEndsError(BaseException):
    """The line took too long."""


def campaign(
    chosen: dict[str, list[str]], count: int, seed: int = 0, seconds: int = SECONDS
) -> Outcome:
    """Try `count` mutations of each line, in the folder that is the current one."""
    outcome = Outcome()
    options = sorted({word for words in chosen.values() for word in words if word[:1] == "-"})
    for name, words in chosen.items():
        for number in range(count):
            rng = np.random.default_rng([seed, len(name), *name.encode(), number])
            try_line(mutated(rng, words, options), outcome, seconds)
    return outcome


def try_line(line: list[str], outcome: Outcome, seconds: int = SECONDS) -> None:
    """Run a line in this process and count how it ended."""
    from stremn.cli import main

    def end(*_: object) -> None:
        raise NeverEndsError

    before = {n: signal.getsignal(n) for n in (signal.SIGTERM, signal.SIGHUP)}
    signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    said, argv = io.StringIO(), sys.argv
    sys.argv = ["stremn", *line]
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(said),
            contextlib.redirect_stderr(said),
        ):
            warnings.simplefilter("ignore")
            main()
        outcome.results += 1
    except SystemExit as ended:
        if "Traceback" in said.getvalue():
            outcome.faults.append(f"{line}: exit {ended.code} with a traceback")
        elif ended.code:
            outcome.sentences += 1
        else:
            outcome.results += 1
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        outcome.faults.append(f"{line}: {error!r:.200} at {place}")
    finally:
        signal.alarm(0)
        sys.argv = argv
        for number, handler in before.items():
            signal.signal(number, handler)


def main() -> None:
    """Run a campaign and print its figures and faults."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--lines", type=int, default=2000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one verb, by name")
    parser.add_argument("--seconds", type=int, default=SECONDS, help="for a line, at most")
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    with tempfile.TemporaryDirectory() as name:
        made = lines(Path(name))
        chosen = {n: w for n, w in made.items() if asked.only in (None, n)}
        os.chdir(tempfile.mkdtemp(dir=name))
        each, lines_in_all, faults = -(-asked.lines // len(chosen)), 0, 0
        for verb, words in chosen.items():
            outcome = campaign({verb: words}, each, asked.seed, asked.seconds)
            print(
                f"{verb}: {outcome.lines} lines, {outcome.results} results, "
                f"{outcome.sentences} sentences, {len(outcome.faults)} faults",
                flush=True,
            )
            for fault in outcome.faults:
                print(f"  {fault}", flush=True)
            lines_in_all, faults = lines_in_all + outcome.lines, faults + len(outcome.faults)
        os.chdir("/")
    print(f"{lines_in_all} lines of {len(chosen)} verbs, {faults} faults")


if __name__ == "__main__":
    main()
