"""Mutated files and calls: each must end in a result or a `StremnError`, and in nothing else.

`python tests/fuzzing.py --inputs 100000` runs a long campaign and prints its figures; the tests run
a short one. Input number n of a subject depends on the seed, the subject's name and n alone.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import tempfile
import time
import traceback
import warnings
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from stremn.batch.jobs import read_jobs
from stremn.batch.reports import REPORT, Report, read_report
from stremn.core.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from stremn.data.readers.instance_sets import CocoStills
from stremn.data.readers.layouts import read_davis
from stremn.errors import StremnError
from stremn.evaluation.segmentation.submission import check_submission
from stremn.media.encoding import write_video
from stremn.media.files import read_rows
from stremn.media.mask_check import diagnose, repair
from stremn.media.masks import read_mask, write_mask
from stremn.media.prompts import parse_box, parse_points
from stremn.media.results import ResultWriter
from stremn.media.rle import decode_rle, encode_rle
from stremn.media.video import open_frames, read_image
from stremn.networks.presets import build_model
from stremn.networks.pretrained import Pretrained, load_model
from stremn.prediction.sessions import PredictionSession
from stremn.prediction.weights import load_predictor, save_predictor
from stremn.segmentation.sessions import SegmentationSession
from stremn.training.prediction.task import TASK as PREDICTION
from stremn.training.segmentation.task import TASK as SEGMENTATION
from tiny_model import tiny_config, tiny_model
from tiny_predictor import tiny
from tiny_vos import davis, names_of, square_labels

Seeds = list[bytes]
RECIPES = Path(__file__).parents[1] / "recipes"


@dataclass(frozen=True)
class Subject:
    """Something that reads a file: valid contents to mutate, and the reading."""

    name: str
    suffix: str
    seeds: Seeds
    read: Callable[[Path], object]
    sealed: bool = False
    """Whether a checksum tells every change, so that a result of changed content is a fault."""


@dataclass
class Outcome:
    """How a campaign went."""

    inputs: Counter[str] = field(default_factory=Counter)
    results: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    faults: list[str] = field(default_factory=list)
    slowest: float = 0.0


def _png(labels: np.ndarray, path: Path) -> bytes:
    write_mask(path, labels)
    return path.read_bytes()


def _picture(folder: Path, suffix: str, mode: str = "RGB") -> bytes:
    pixels = np.random.default_rng(3).integers(0, 255, (24, 32, 3), dtype=np.uint8)
    path = folder / f"picture.{suffix}"
    Image.fromarray(pixels).convert(mode).save(path)
    return path.read_bytes()


def subjects(folder: Path) -> list[Subject]:
    """All that is read from files, with small valid contents."""
    labels = np.zeros((24, 32), np.uint8)
    labels[4:14, 4:14], labels[15:22, 9:29] = 1, 7
    wide = labels.astype(np.uint16) * 300
    masks = [
        _png(labels, folder / "a.png"),
        _png(wide, folder / "b.png"),
        *(_picture(folder, s, m) for s, m in [("png", "RGBA"), ("gif", "P"), ("tif", "L")]),
    ]
    pictures = [_picture(folder, s) for s in ("png", "jpg", "bmp", "tif", "webp", "ppm")]
    frames = [np.full((32, 48, 3), 9 * i, np.uint8) for i in range(6)]
    write_video(folder / "v.mp4", frames, 10)
    videos = [(folder / "v.mp4").read_bytes(), _picture(folder, "gif", "P")]
    return [
        Subject("masks", "png", masks, lambda p: (read_mask(p), diagnose(p), repair(p))),
        Subject("pictures", "png", pictures, read_image),
        Subject("videos", "mp4", videos, lambda p: sum(1 for _ in open_frames(p))),
        *_states(folder),
        *_texts(folder),
        *_batches(folder),
        _zips(folder),
    ]


def _states(folder: Path) -> list[Subject]:
    model, predictor = tiny_model(summary=True), tiny(carried=8)
    rng = np.random.default_rng(0)
    options = {"precision": "float32", "size": 64, "memory_slots": 2, "reach": 0.5}
    session = SegmentationSession(model, device="cpu", policy="learned", **options)
    mask = np.zeros((64, 64), np.uint8)
    mask[4:30, 4:30], mask[34:60, 34:60] = 3, 5
    session.step(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8), mask)
    session.save(folder / "s")
    seen = PredictionSession(predictor, device="cpu")
    for _ in range(5):
        seen.observe(rng.integers(0, 255, (16, 16), dtype=np.uint8))
    seen.save(folder / "p")
    save_predictor(predictor, folder / "w")
    network = tiny_config(backbone="test_efficientnet", summary=True)  # a backbone that timm has
    Pretrained(build_model(network), network).save(folder / "m")
    write_checkpoint(folder / "c", Checkpoint({"x": mask_tensor()}, {"step": 3}))
    files = {name: [(folder / name).read_bytes()] for name in "spwmc"}

    def session_of(path: Path) -> object:
        return SegmentationSession.load(path, model, device="cpu").step(
            rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)
        )

    def prediction_of(path: Path) -> object:
        return PredictionSession.load(path, predictor, device="cpu").predict(2)

    return [
        Subject("sessions", "safetensors", files["s"], session_of, sealed=True),
        Subject("prediction sessions", "safetensors", files["p"], prediction_of, sealed=True),
        Subject("predictor weights", "safetensors", files["w"], load_predictor, sealed=True),
        Subject("segmentation weights", "safetensors", files["m"], load_model, sealed=True),
        Subject("weights of another task", "safetensors", files["w"], load_model),
        Subject("checkpoints", "safetensors", files["c"], read_checkpoint, sealed=True),
    ]


def mask_tensor() -> Any:
    import torch

    return torch.arange(24.0).reshape(4, 6)


def _texts(folder: Path) -> list[Subject]:
    coco = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [
            {"image_id": 1, "segmentation": [[1, 1, 9, 1, 9, 9]], "area": 3},
            {"image_id": 1, "segmentation": {"counts": [10, 758], "size": [24, 32]}},
            {
                "image_id": 1, "iscrowd": 1,
                "segmentation": {
                    "counts": encode_rle(np.eye(24, 32, dtype=bool)), "size": [24, 32]
                },
            },
        ],
    }  # fmt: skip
    images = folder / "coco"
    images.mkdir()
    (images / "a.png").write_bytes(_picture(folder, "png"))

    def coco_of(path: Path) -> object:
        stills = CocoStills(images, path)
        return [stills.load(index) for index in range(len(stills))]

    out = folder / "run"
    with ResultWriter(out, fps=10, settings={"model": "small"}) as writer:
        writer.checkpoint(lambda path: path.write_bytes(b"state"))
    progress = out / ".resume" / "progress.json"
    content = progress.read_bytes()
    rows = b'[\n{"frame": 0, "name": "00000"}\n]\n'

    def progress_of(path: Path) -> object:
        (out / "memory.json").write_bytes(rows)  # the input before may have begun a new run
        progress.write_bytes(path.read_bytes())
        with ResultWriter(out, fps=10, settings={"model": "small"}, existing="resume") as writer:
            return writer.next_frame

    recipes = [p.read_bytes() for p in sorted(RECIPES.glob("*.toml"))]
    own = [r for r in recipes if b"[stages" in r or b"[[stages" in r][:4]
    return [
        Subject("recipes", "toml", own or recipes[:4], SEGMENTATION.read),
        Subject("prediction recipes", "toml", recipes[:4], PREDICTION.read),
        Subject("COCO files", "json", [json.dumps(coco).encode()], coco_of),
        Subject("progress files", "json", [content], progress_of),
        Subject("records of runs", "json", [rows * 1], read_rows),
        Subject("run lengths", "txt", [encode_rle(np.eye(24, dtype=bool)).encode()], _rle_of),
        Subject("boxes", "txt", [b"1,2,30,40", b"1.5,2e3,1e400,-4"], lambda p: parse_box(_text(p))),
        Subject("points", "txt", [b"1,2 3,4", b"5,6;7,8"], lambda p: parse_points(_text(p))),
    ]


def _text(path: Path) -> str:
    return path.read_bytes().decode("latin-1")


def _rle_of(path: Path) -> object:
    return decode_rle(_text(path), (24, 24))


def _batches(folder: Path) -> list[Subject]:
    """Jobs and their reports; videos and masks lie beside the jobs."""
    (folder / "a.mp4").write_bytes(b"")
    table = (
        "name,video,mask,box,object,slots,coco\n"
        'one,a.mp4,a.png,,,4,yes\n\n"t w o", ./a.mp4,,"1,2,3,4",,,no\n'
        "~three,http://x/a.mp4,,,id=2 box=1,,\n"
    )
    report = Report(name="one", arguments=["a", "--mask", "b"], status="failed", error="é")
    report.save(folder / "job")

    def jobs_of(path: Path) -> object:
        return [job.arguments({"coco": ("--coco", None)}) for job in read_jobs(path)]

    def report_of(path: Path) -> object:
        (folder / "job" / REPORT).write_bytes(path.read_bytes())
        return read_report(folder / "job")

    return [
        Subject("jobs", "csv", [table.encode()], jobs_of),
        Subject("reports of jobs", "json", [(folder / "job" / REPORT).read_bytes()], report_of),
    ]


def _zips(folder: Path) -> Subject:
    davis(folder / "davis", {"a": [1]}, split="test-dev", count=2)
    data = read_davis(folder / "davis", "test-dev")
    path = folder / "good.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for index, name in enumerate(names_of(2)):
            archive.writestr(f"a/{name}.png", _png(square_labels(index, [1]), folder / "z.png"))
    return Subject(
        "submission zips", "zip", [path.read_bytes()],
        lambda p: check_submission(data, p, "davis"),
    )  # fmt: skip


# ---------------------------------------------------------------- mutation


EXTREMES = [0, 1, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1]
TOKENS = [
    b"null", b"NaN", b"-1", b"1e999", b"9" * 40, b"[]", b"{}", b"true", b'""', b"\xff", b"\0",
    b'"../../x"', b"[[" * 200, b"0.5", b"1, 2", b"inf", b"=", b"\n",
    b"~", b"*", b"x" * 300, b",", b'"', b"\r",
]  # fmt: skip


def mutated(rng: np.random.Generator, seeds: Seeds) -> bytes:
    """Return one of the contents with one to four changes."""
    content = bytearray(seeds[rng.integers(len(seeds))])
    for _ in range(int(rng.integers(1, 5))):
        _mutate(rng, content, seeds)
    if rng.random() < 0.3 and content[:4] == b"\x89PNG":
        _repair_checksums(content)
    return bytes(content)


def _mutate(rng: np.random.Generator, content: bytearray, seeds: Seeds) -> None:
    size = len(content)
    place = int(rng.integers(size)) if size else 0
    length = int(rng.integers(1, 2 + size // 8)) if size else 1
    way = rng.integers(9)
    if way <= 1 and size:
        content[place] ^= 1 << int(rng.integers(8))
    elif way == 2 and size:
        content[place] = int(rng.choice([0, 255, rng.integers(256)]))
    elif way == 3:
        del content[place : place + length]
    elif way == 4:
        content[place:place] = content[place : place + length]
    elif way == 5:
        del content[place:]
    elif way == 6:
        number = int(rng.choice(EXTREMES))
        order = "little" if rng.random() < 0.5 else "big"
        content[place : place + 4] = number.to_bytes(4, order)  # type: ignore[arg-type]
    elif way == 7:
        token = TOKENS[rng.integers(len(TOKENS))]
        content[place : place + int(rng.integers(0, 6))] = token
    else:
        other = seeds[rng.integers(len(seeds))]
        start = int(rng.integers(len(other)))
        content[place : place + length] = other[start : start + length]


def _repair_checksums(content: bytearray) -> None:
    """Give a PNG's pieces right checksums, so that what is behind them is reached."""
    place = 8
    while place + 12 <= len(content):
        length = int.from_bytes(content[place : place + 4], "big")
        end = place + 8 + length
        if end + 4 > len(content):
            return
        content[end : end + 4] = zlib.crc32(content[place + 4 : end]).to_bytes(4, "big")
        place = end + 4


# ---------------------------------------------------------------- campaign


def campaign(
    chosen: list[Subject], folder: Path, inputs: int, seed: int = 0, first: int = 0
) -> Outcome:
    """Try `inputs` mutations of each subject, from number `first` on."""
    outcome = Outcome()
    for subject in chosen:
        path = folder / f"input.{subject.suffix}"
        key = zlib.crc32(subject.name.encode())
        for number in range(first, first + inputs):
            rng = np.random.default_rng([seed, key, number])
            path.write_bytes(mutated(rng, subject.seeds))
            try_one(subject, path, number, outcome)
    return outcome


def try_one(subject: Subject, path: Path, number: int, outcome: Outcome) -> None:
    """Read one file and count how it ended."""
    outcome.inputs[subject.name] += 1
    began = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            subject.read(path)
        outcome.results[subject.name] += 1
        content = path.read_bytes()
        # The checksum's own name may be lost; nothing else changed then, or it would be refused.
        if subject.sealed and content not in subject.seeds and b"stremn_checksum" in content:
            outcome.faults.append(f"{subject.name} {number}: changed, and taken")
    except StremnError:
        outcome.refused[subject.name] += 1
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        where = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{Path(where.filename).name}:{where.lineno}"
        outcome.faults.append(f"{subject.name} {number}: {error!r:.150} at {place}")
    outcome.slowest = max(outcome.slowest, time.perf_counter() - began)


def main() -> None:
    """Run a campaign and print a table of its figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--inputs", type=int, default=100_000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="one subject, by name")
    asked = parser.parse_args()
    resource.setrlimit(resource.RLIMIT_AS, (12 << 30, 12 << 30))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        found = [s for s in subjects(folder) if asked.only in (None, s.name)]
        each = -(-asked.inputs // len(found))
        total = Counter[str]()
        print("| subject | inputs | results | refused | faults | seconds |")
        print("| --- | --- | --- | --- | --- | --- |")
        for subject in found:
            began = time.perf_counter()
            outcome = campaign([subject], folder, each, asked.seed)
            seconds = time.perf_counter() - began
            row = [
                outcome.inputs[subject.name], outcome.results[subject.name],
                outcome.refused[subject.name], len(outcome.faults),
            ]  # fmt: skip
            total.update(dict(zip(["inputs", "results", "refused", "faults"], row, strict=True)))
            print(f"| {subject.name} | {' | '.join(map(str, row))} | {seconds:.0f} |", flush=True)
            for fault in outcome.faults[:20]:
                print(f"  {fault}", file=sys.stderr, flush=True)
        print(f"| all | {' | '.join(str(total[n]) for n in total)} | |")


if __name__ == "__main__":
    main()
