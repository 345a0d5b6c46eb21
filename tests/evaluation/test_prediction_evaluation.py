"""Table 5's harness: scores by a loop, intervals, tables, curves, and the recipes' whole path."""

import json
import sys
from pathlib import Path
from typing import get_type_hints

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from typer.testing import CliRunner

from made_data import some_digits, write_digits
from stremn.cli.app import app
from stremn.cli.prediction_scores import prediction
from stremn.core.checkpoints import Checkpoint, read_checkpoint, write_checkpoint
from stremn.data.readers.digits import moving_digits
from stremn.data.readers.prediction_sets import ClipsSection, open_clips
from stremn.errors import MissingExtraError, StremnError
from stremn.evaluation.prediction.evaluation import (
    as_predict,
    difference,
    over_origins,
    score,
)
from stremn.evaluation.prediction.metrics import METRICS
from stremn.evaluation.prediction.report import evaluate_prediction, plot_curves, table
from stremn.prediction.baselines import (
    TRIVIAL,
    RecurrentConfig,
    build_baseline,
    predict_last,
    predict_zero,
)
from stremn.prediction.building import build_predictor
from stremn.prediction.config import PredictionConfig
from stremn.prediction.weights import load_predictor, save_predictor
from stremn.training.prediction.cost import _StepTime
from stremn.training.prediction.model import first_model
from stremn.training.prediction.recipe import HorizonConfig
from stremn.training.prediction.task import TASK
from stremn.training.tasks import task_of, train

RECIPES = Path(__file__).parents[2] / "recipes"
TINY = {
    "size": 16,
    "widths": [8] * 6,
    "strides": [2, 1, 2, 1, 1, 1],
    "key": 6,
    "value": 8,
    "update_key": 6,
}


def clips(length=5, frames=8):
    return moving_digits(some_digits(4), length, frames, size=16, side=8)


def test_scores_equal_a_loop_over_clips_and_frames():
    source = clips()
    scores = score("zero", predict_zero, source, 5, 3, batch=2)
    for i in range(5):
        for j in range(3):
            frame = source[i][5 + j].double() / 255
            assert scores.values["mse"][i, j] == pytest.approx(
                float(frame.square().sum()), rel=1e-5
            )
            assert scores.values["mae"][i, j] == pytest.approx(float(frame.sum()), rel=1e-5)
    assert scores.curve("mse").tolist() == pytest.approx(scores.values["mse"].mean(0).tolist())
    interval = scores.interval("mse")
    assert interval.mean == pytest.approx(scores.values["mse"].mean())
    assert interval.low <= interval.mean <= interval.high


def test_a_perfect_predictor_scores_perfectly_and_the_target_is_not_shown():
    source = clips(3)
    batch = torch.stack(list(source)).float() / 255
    seen = []

    def oracle(observed, frames):
        seen.append(observed.shape[1])
        return batch[:, 5 : 5 + frames]

    scores = score("oracle", oracle, source, 5, 3)
    assert seen == [5]
    assert float(scores.values["mse"].max()) == 0
    assert float(scores.values["ssim"].min()) == pytest.approx(1)


def test_progress_limit_and_too_short_clips():
    told = []
    score("zero", predict_zero, clips(), 5, 3, limit=3, batch=2, progress=lambda *x: told.append(x))
    assert told == [(2, 3), (3, 3)]
    with pytest.raises(StremnError, match="Clips have 8 frames, but 5 observed and 4 predicted"):
        score("zero", predict_zero, clips(), 5, 4)
    with pytest.raises(StremnError, match="no clips to score"):
        score("zero", predict_zero, clips(0), 5, 3)


@pytest.mark.parametrize("name", ["observed", "future", "batch", "limit"])
@pytest.mark.parametrize("number", [0, -1])
def test_numbers_below_one_are_refused(name, number):
    asked = {"observed": 5, "future": 3} | {name: number}
    with pytest.raises(StremnError, match=f"{name} must be 1 or more, got {number}"):
        score("zero", predict_zero, clips(), **asked)


def test_paired_difference_needs_the_same_clips_and_is_narrower():
    source = clips(12)
    zero = score("zero", predict_zero, source, 5, 3)
    last = score("copy-last", predict_last, source, 5, 3)
    gap = difference(last, zero, "mse")
    assert gap.mean == pytest.approx(last.interval("mse").mean - zero.interval("mse").mean)

    def near(observed, frames):  # errs nearly as copying the last frame does
        return 0.9 * predict_last(observed, frames)

    close, far = score("near", near, source, 5, 3), last.interval("mse")
    gap = difference(last, close, "mse")
    assert gap.high - gap.low < (far.high - far.low) / 2
    with pytest.raises(StremnError, match="not scored on the same clips: 12 clips of 3 frames"):
        difference(last, score("zero", predict_zero, source, 5, 3, limit=4), "mse")


def test_intervals_over_clips_cover_the_mean():
    rng = np.random.default_rng(0)
    hits = 0
    for _ in range(60):
        interval = over_origins(rng.normal(size=40), [str(i) for i in range(40)])
        hits += interval.low <= 0 <= interval.high
    assert 50 <= hits <= 60


def test_clips_of_one_video_are_one_sample():
    """Windows that overlap say no more than their video: copies change nothing."""
    values, names = np.array([3.0, 1.0, 2.5, 7.0]), ["b", "a", "d", "c"]
    once = over_origins(values, names)
    assert over_origins(np.repeat(values, 9), np.repeat(names, 9).tolist()) == once
    assert once.samples == 4
    alone = over_origins(values, ["one"] * 4)
    assert not alone.known
    assert alone.tie
    uneven = over_origins(np.array([1.0, 1.0, 1.0, 5.0]), ["x", "x", "x", "y"])
    assert uneven.mean == pytest.approx(2.0)


class Windows:
    """Clips of 8 frames of two gray levels, so many of each video."""

    def __init__(self, *counts):
        self.videos = [f"video {v}" for v, count in enumerate(counts) for _ in range(count)]

    def __len__(self):
        return len(self.videos)

    def __getitem__(self, index):
        level = 40 * (1 + int(self.videos[index][-1]))
        return torch.full((8, 1, 16, 16), level, dtype=torch.uint8)

    def origin(self, index):
        return self.videos[index]

    def origins(self):
        return frozenset(self.videos)


def test_some_of_the_clips_are_of_all_videos():
    scores = score("zero", predict_zero, Windows(5, 5, 5, 5), 5, 3, limit=4)
    assert scores.origins == ("video 0", "video 1", "video 2", "video 3")
    assert scores.total == 20
    text = table([scores])
    assert "Mean over 4 clips of 20, evenly spaced, and 3 predicted frames" in text
    assert "bootstrap interval over clips." in text
    whole = table([score("zero", predict_zero, Windows(5, 5, 5), 5, 3)])
    assert "in brackets the 95 % bootstrap interval over the 3 people or videos they" in whole
    few = table([score("zero", predict_zero, Windows(5, 5), 5, 3)])
    assert "too few for the 95 % bootstrap interval over the 2 people or videos" in few
    assert "[" not in few.splitlines()[2]


def test_table_names_every_convention_and_curves_are_drawn(tmp_path):
    rows = [score(n, p, clips(), 5, 3) for n, p in (("zero", predict_zero), ("last", predict_last))]
    text = table(rows)
    for metric in METRICS.values():
        assert f"- {metric.name}: {metric.convention}; " in text
    assert "| zero | 0 | " in text
    assert "5 clips and 3 predicted frames" in text
    plot_curves(rows, METRICS["mse"], tmp_path / "curves.png", observed=5)
    assert (tmp_path / "curves.png").stat().st_size > 5000


@pytest.mark.parametrize("videos", [2, 3])
def test_bands_are_drawn_where_tables_have_intervals(tmp_path, monkeypatch, videos):
    from matplotlib.axes import Axes

    bands = []
    monkeypatch.setattr(Axes, "fill_between", lambda *_, **__: bands.append(1))
    rows = [score("zero", predict_zero, Windows(*[4] * videos), 5, 3)]
    plot_curves(rows, METRICS["mse"], tmp_path / "curves.png", observed=5)
    assert len(bands) == (videos > 2)


def test_evaluation_scores_weights_baselines_and_rules(tmp_path):
    torch.manual_seed(0)
    ours = build_predictor(PredictionConfig(**TINY, memory_slots=2))
    save_predictor(ours, tmp_path / "ours.safetensors")
    save_predictor(
        build_baseline(RecurrentConfig(kind="convlstm", hidden=4)), tmp_path / "lstm.safetensors"
    )
    data = ClipsSection(
        kind="moving-digits", path=str(write_digits(tmp_path / "digits")), size=16, side=8
    )
    text = evaluate_prediction(
        data,
        [str(tmp_path / "ours.safetensors"), str(tmp_path / "lstm.safetensors")],
        observed=6,
        future=2,
        policies=["oldest", "growing"],
        clips=4,
        out=tmp_path / "out",
    )
    names = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    folder = tmp_path.name
    assert names == [
        "predictor",
        "zero",
        "copy-last",
        "mean",
        "flow",
        "fine-flow",
        f"{folder}/ours (stremn)",
        f"{folder}/ours, rule oldest",
        f"{folder}/ours, rule growing",
        f"{folder}/lstm (convlstm)",
    ]
    assert (tmp_path / "out" / "table.md").read_text() == text + "\n"
    assert json.loads((tmp_path / "out" / "facts.json").read_text())["clips"] == 4
    saved = load_file(tmp_path / "out" / "clips.safetensors")
    test = open_clips(data, "test", observed=6, future=2, length=4)
    again = score("x", as_predict(ours.eval().under("growing")), test, 6, 2)
    np.testing.assert_allclose(
        saved[f"{folder}/ours, rule growing/mse"], again.values["mse"], rtol=1e-4
    )
    assert (tmp_path / "out" / "mse.png").exists()


def test_what_cannot_be_scored_is_said_before_anything_is(tmp_path, monkeypatch):
    save_predictor(build_predictor(PredictionConfig(**TINY)), tmp_path / "ours.safetensors")
    data = ClipsSection(
        kind="moving-digits", path=str(write_digits(tmp_path / "d")), size=16, side=8
    )

    def evaluate(*sources, **options):
        return evaluate_prediction(
            data, sources, observed=6, future=2, clips=2, out=tmp_path / "out", **options
        )

    def never(*_, **__):
        raise AssertionError("scored in vain")

    ours = str(tmp_path / "ours.safetensors")
    with monkeypatch.context() as patch:
        patch.setattr("stremn.evaluation.prediction.report.score", never)
        with pytest.raises(StremnError, match="typo"):
            evaluate(ours, str(tmp_path / "typo.safetensors"))
        with pytest.raises(StremnError, match="'evidence' has weights of its own"):
            evaluate(ours, policies=["evidence"])
        (tmp_path / "out").write_text("a file")
        with pytest.raises(StremnError, match="is a file, not a folder"):
            evaluate(ours)
        (tmp_path / "out").unlink()
    broken = []

    def fails_at_the_third(name, *arguments, **options):
        broken.append(name)
        if len(broken) == 3:
            raise StremnError("broken")
        return score(name, *arguments, **options)

    monkeypatch.setattr("stremn.evaluation.prediction.report.score", fails_at_the_third)
    with pytest.raises(StremnError, match="broken"):
        evaluate(ours)
    assert "copy-last" in (tmp_path / "out" / "table.md").read_text()


def test_missing_matplotlib_is_told_before_anything_is_scored(tmp_path, monkeypatch):
    class BegunError(Exception):
        pass

    def begin(*_, **__):
        raise BegunError

    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.setattr("stremn.evaluation.prediction.report.score", begin)
    data = ClipsSection(
        kind="moving-digits", path=str(write_digits(tmp_path / "d")), size=16, side=8
    )
    with pytest.raises(MissingExtraError, match="matplotlib"):
        evaluate_prediction(data, [], observed=6, future=2, clips=2, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    with pytest.raises(BegunError):  # nothing is drawn
        evaluate_prediction(data, [], observed=6, future=2, clips=2)


def test_an_interrupted_evaluation_says_what_is_written(tmp_path, monkeypatch, caplog):
    names = []

    def stops_at_the_third(name, *arguments, **options):
        names.append(name)
        if len(names) == 3:
            raise KeyboardInterrupt
        return score(name, *arguments, **options)

    monkeypatch.setattr("stremn.evaluation.prediction.report.score", stops_at_the_third)
    data = ClipsSection(
        kind="moving-digits", path=str(write_digits(tmp_path / "d")), size=16, side=8
    )
    for out in (None, tmp_path / "out"):
        names.clear()
        assert not caplog.text  # without a folder, nothing is kept
        with pytest.raises(KeyboardInterrupt):
            evaluate_prediction(data, [], observed=6, future=2, clips=2, out=out)
    assert f"The scores of zero, copy-last are in {tmp_path / 'out'}." in caplog.text


def test_weights_of_one_name_in_two_folders_have_two_rows(tmp_path):
    data = ClipsSection(
        kind="moving-digits", path=str(write_digits(tmp_path / "d")), size=16, side=8
    )
    paths = [tmp_path / run / "averaging" / "uniform.safetensors" for run in ("a", "b")]
    for path in paths:
        path.parent.mkdir(parents=True)
        save_predictor(build_predictor(PredictionConfig(**TINY)), path)
    text = evaluate_prediction(
        data, [*map(str, paths), str(paths[0])], observed=6, future=2, clips=2
    )
    assert text.count("| a/averaging/uniform (stremn)") == 1
    assert text.count("| b/averaging/uniform (stremn)") == 1


# --- recipes


@pytest.mark.parametrize(
    "path",
    [*sorted(RECIPES.glob("prediction-*.toml")), RECIPES / "your-videos.toml"],
    ids=lambda path: path.stem,
)
def test_recipes_of_the_repository_are_valid(path):
    assert task_of(path) is TASK
    recipe = TASK.read(path)
    assert recipe.train.monitor == "ssim"
    assert path.name in path.read_text()  # the header names its own command


RECIPE = """
task = "prediction"
batch = 2

[model]
preset = "32-small"
fields = {fields}

[data]
kind = "moving-digits"
path = "{path}"
size = 16
side = 8

[horizon]
observed = 5
future = 2

[train]
steps = 6
optimizer = "adam"
lr = 2e-3
checkpoint_every = 3
validate_every = 2
monitor = "ssim"
log_every = 2

[validation]
clips = 4
average = 2
"""


@pytest.fixture
def recipe(tmp_path):
    fields = ", ".join(f"{key} = {value}" for key, value in TINY.items())
    path = tmp_path / "prediction-tiny.toml"
    digits = write_digits(tmp_path / "digits")
    path.write_text(RECIPE.format(fields="{ " + fields + " }", path=digits.as_posix()))
    return path


def test_a_recipe_trains_validates_averages_and_resumes(tmp_path, recipe):
    result = TASK.run(recipe, [], tmp_path / "whole")
    assert (result.stopped, result.step) == ("finished", 6)
    report = json.loads((tmp_path / "whole" / "averaging.json").read_text())
    scores = {name: entry["ssim"] for name, entry in report["validation"].items()}
    assert set(scores) == {"best", "uniform", "greedy"}
    assert scores["greedy"] >= scores["best"] - 1e-6
    assert scores[report["chosen"]] == max(scores.values())
    chosen = load_predictor(tmp_path / "whole" / "chosen.safetensors")
    assert chosen.config.size == 16
    kept = sorted(p.name for p in (tmp_path / "whole" / "averaging").glob("*_*.safetensors"))
    assert len(kept) == 2
    for _ in range(2):  # nothing is left to train: the same weights are no new candidates
        TASK.run(recipe, [], tmp_path / "whole", resume=True)
    again = sorted(p.name for p in (tmp_path / "whole" / "averaging").glob("*_*.safetensors"))
    assert again == kept
    assert json.loads((tmp_path / "whole" / "averaging.json").read_text()) == report
    header = (tmp_path / "whole" / "validation.csv").read_text().splitlines()[0]
    for column in ("ssim", "mse", "mse_first", "mse_last"):
        assert column in header


def test_a_checkpoint_older_than_a_key_of_the_recipe_resumes(tmp_path, recipe):
    TASK.run(recipe, ["train.steps=3"], tmp_path)
    saved = read_checkpoint(tmp_path / "checkpoint.safetensors")
    facts = json.loads(json.dumps(saved.facts))
    del facts["recipe"]["loss"]["future_weight"]
    write_checkpoint(tmp_path / "checkpoint.safetensors", Checkpoint(saved.tensors, facts))
    result = TASK.run(recipe, ["train.steps=4"], tmp_path, resume=True)
    assert (result.stopped, result.step) == ("finished", 4)
    recipe.write_text(recipe.read_text() + "\n[loss]\nfuture_weight = 2.0\n")
    with pytest.raises(StremnError, match=r"loss\.future_weight"):
        TASK.run(recipe, ["train.steps=5"], tmp_path, resume=True)


def test_a_baseline_trains_from_the_same_recipe(tmp_path, recipe):
    sets = ["model.kind=convlstm", "model.fields={ hidden = 4 }", "train.steps=2"]
    assert TASK.run(recipe, sets, tmp_path / "lstm").step == 2
    assert load_predictor(tmp_path / "lstm" / "last.safetensors").config.kind == "convlstm"


def test_a_training_starts_from_weights_under_another_rule(tmp_path, recipe):
    TASK.run(recipe, ["train.steps=2"], tmp_path / "first")
    weights = tmp_path / "first" / "last.safetensors"
    sets = [f'model.start="{weights.as_posix()}"', 'model.fields={ policy = "oldest" }']
    model = first_model(TASK.read(recipe, sets))
    before = load_predictor(weights)
    assert (before.config.policy, model.config.policy) == ("learned", "oldest")
    for name, tensor in before.state_dict().items():
        assert torch.equal(model.state_dict()[name], tensor)
    with pytest.raises(StremnError, match="does not fit"):
        first_model(TASK.read(recipe, [sets[0], "model.fields={ key = 5 }"]))


def test_a_training_goes_on_without_what_it_started_from(tmp_path, recipe):
    """Also under another rule than that of its start."""
    TASK.run(recipe, ["train.steps=1"], tmp_path / "first")
    weights = tmp_path / "first" / "last.safetensors"
    sets = [f'model.start="{weights.as_posix()}"', 'model.fields={ policy = "oldest" }']
    TASK.run(recipe, [*sets, "train.steps=3"], tmp_path / "whole")
    cut = [*sets, "train.steps=3", "train.time_budget_minutes=1e-9"]
    assert TASK.run(recipe, cut, tmp_path / "cut").step < 3
    weights.unlink()
    TASK.run(recipe, [*sets, "train.steps=3"], tmp_path / "cut", resume=True)
    whole, found = (load_predictor(tmp_path / n / "last.safetensors") for n in ("whole", "cut"))
    assert found.config == whole.config
    for name, tensor in whole.state_dict().items():
        assert torch.equal(found.state_dict()[name], tensor), name


def test_a_training_starts_from_a_baseline_as_it_is(tmp_path, recipe):
    weights = tmp_path / "lstm.safetensors"
    save_predictor(build_baseline(RecurrentConfig(kind="convlstm", hidden=4)), weights)
    start = f'model.start="{weights.as_posix()}"'
    assert first_model(TASK.read(recipe, [start, "model.fields={}"])).config.hidden == 4
    with pytest.raises(StremnError, match=r"model\.fields cannot change it"):
        first_model(TASK.read(recipe, [start, "model.fields={ hidden = 5 }"]))


def test_the_cost_of_a_recipe_is_told_without_training(tmp_path, recipe):
    text = train(recipe, [], tmp_path / "none", resume=False, dry_run=True)
    assert "parameters; a step takes" in text
    assert not (tmp_path / "none").exists()


def test_the_mean_step_is_that_of_the_horizons_of_a_training():
    horizon = HorizonConfig(observed=5, future=11, free_from=0.0, full_at=0.5)
    seconds = _StepTime(1.0, 3.0).mean(horizon)
    assert seconds == pytest.approx((1.0 + 3 * 3.0) / 4, rel=0.02)  # full for half of it
    assert _StepTime(1.0, 3.0).mean(HorizonConfig(observed=5, future=1)) == 1.0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("model.preset=none", "Unknown preset 'none'; known: 64, 128"),
        ("data.size=32", r"model is for 16x16 frames of 1 channel\(s\), the clips are 32x32"),
        ("data.sise=32", "sise"),
    ],
)
def test_recipes_that_do_not_fit_are_refused(tmp_path, recipe, change, message):
    with pytest.raises(StremnError, match=message):
        TASK.run(recipe, [change], tmp_path / "out")


def test_the_hidden_digit_needs_more_frames_than_it_is_away(tmp_path):
    data = ClipsSection(
        kind="hidden-digit", path=str(write_digits(tmp_path / "d")), size=32, side=14
    )
    assert open_clips(data, "val", observed=20, future=6, length=3)[0].shape == (26, 1, 32, 32)
    with pytest.raises(StremnError, match="away for 12 frames, so more must be observed"):
        open_clips(data, "val", observed=12, future=6, length=3)


def test_a_relative_path_without_a_data_folder_is_named(monkeypatch):
    monkeypatch.delenv("STREMN_DATA", raising=False)
    with pytest.raises(StremnError, match="set the variable STREMN_DATA"):
        open_clips(
            ClipsSection(kind="kth", path="no/such"), "test", observed=10, future=20, length=1
        )


def test_the_command_line_prints_the_table(tmp_path):
    digits = write_digits(tmp_path / "digits")
    words = ["evaluate", "prediction", "moving-digits", "--root", str(digits), "--size", "16",
             "--side", "8", "--observed", "4", "--future", "2", "--clips", "2"]  # fmt: skip
    result = CliRunner().invoke(app, words)
    assert result.exit_code == 0, result.output
    for name in ("zero", "copy-last", "mean", "ssim_range2"):
        assert name in result.output
    parts = [CliRunner().invoke(app, [*words, "--split", part]).output for part in ("test", "val")]
    assert parts[0] == result.output != parts[1]


def test_paired_differences_are_told_frame_by_frame(tmp_path):
    data = ClipsSection(
        kind="moving-digits", path=str(write_digits(tmp_path / "digits")), size=16, side=8
    )
    out = tmp_path / "out"
    asked = {"observed": 4, "future": 2, "clips": 5}
    text = evaluate_prediction(data, [], **asked, against="copy-last", out=out)
    assert (out / "table.md").read_text() == text + "\n"
    rows = [line for line in text.splitlines() if line.startswith("| zero |")]
    clips = open_clips(data, "test", observed=4, future=2, length=5)
    frames = torch.stack([clips[i] for i in range(5)]).float() / 255
    gap = frames[:, 4:].square() - (frames[:, 4:] - frames[:, 3:4]).square()
    expected = gap.sum((2, 3, 4)).mean(0)
    cells = [float(cell.split("[")[0]) for cell in rows[1].split("|")[2:4]]
    assert cells == pytest.approx(expected.tolist(), rel=1e-3)
    assert "| mse, minus copy-last | 1 | 2 |" in text
    with pytest.raises(StremnError, match="Compare with one of zero, copy-last"):
        evaluate_prediction(data, [], observed=4, future=2, clips=5, against="flew")


@pytest.mark.parametrize("option", ["--observed", "--future", "--clips"])
@pytest.mark.parametrize("number", ["0", "-1"])
def test_the_command_line_refuses_numbers_below_one(tmp_path, option, number):
    words = ["evaluate", "prediction", "moving-digits", "--root", str(tmp_path), option, number]
    ended = CliRunner().invoke(app, words)
    assert ended.exit_code == 2, ended.exception
    assert option in ended.output


def test_clips_below_one_are_refused_before_data_is_read():
    data = ClipsSection(kind="moving-digits", path="/nowhere")
    with pytest.raises(StremnError, match="clips must be 1 or more, got -1"):
        evaluate_prediction(data, [], clips=-1)


def test_help_names_every_baseline():
    told = prediction.__doc__ or ""
    against = get_type_hints(prediction, include_extras=True)["against"].__metadata__[0].help
    for name in TRIVIAL:
        assert f"`{name}`" in told
        assert name in against.partition(":")[2].strip(" .").split(", ")
    assert "Five baselines" in told
    assert len(TRIVIAL) == 5
