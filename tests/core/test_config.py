from pathlib import Path
from typing import Literal

import pytest
from pydantic import Field, PositiveInt, model_validator

from stremn.core.config import Config, Difference, build, differences, override, read_toml
from stremn.errors import StremnError


class Stage(Config):
    frames: PositiveInt
    size: int = 256


class Train(Config):
    lr: float = 1e-3
    steps: PositiveInt = 10
    optimizer: Literal["adam", "adamw"] = "adam"


class Recipe(Config):
    train: Train = Train()
    stages: tuple[Stage, ...] = ()
    named: dict[str, Stage] = Field(default_factory=dict)
    maybe: Stage | None = None

    @model_validator(mode="after")
    def _check(self) -> "Recipe":
        if len(self.stages) > 2:
            raise ValueError("at most two stages")
        return self


def test_reads_and_builds(tmp_path: Path) -> None:
    path = tmp_path / "a.toml"
    path.write_text("[train]\nlr = 2e-4\n[[stages]]\nframes = 3\n[named.x]\nframes = 1\n")
    recipe = build(Recipe, read_toml(path), str(path))
    assert recipe.train.lr == 2e-4
    assert recipe.stages[0].size == 256
    assert recipe.named["x"].frames == 1


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(StremnError, match=r"Cannot read the recipe .*b\.toml: No such file"):
        read_toml(tmp_path / "b.toml")


def test_not_toml(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("a = = 3")
    with pytest.raises(StremnError, match=r"a\.toml is not valid TOML: .*line 1"):
        read_toml(tmp_path / "a.toml")


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            {"trian": {}},
            r"Unknown key 'trian'\. Did you mean 'train'\? "
            r"Known keys of the top level: maybe, named, stages, train\.",
        ),
        (
            {"train": {"stepz": 3}},
            r"'train\.stepz'\. Did you mean 'steps'\? "
            r"Known keys of train: lr, optimizer, steps\.",
        ),
        ({"train": {"zzz": 3}}, r"'train\.zzz'\. Known keys of train"),
        ({"stages": [{"frames": 1, "sise": 3}]}, r"mean 'size'\? Known keys of stages\.0: frames"),
        ({"named": {"x": {"frames": 1, "sise": 3}}}, r"Known keys of named\.x: frames, size"),
        ({"maybe": {"frames": 1, "sise": 3}}, r"Known keys of maybe: frames, size"),
        ({"stages": [{}]}, r"The key 'stages\.0\.frames' is missing"),
        ({"train": {"steps": 0}}, r"train\.steps: Input should be greater than 0, got 0"),
        ({"train": {"optimizer": "sgd"}}, r"train\.optimizer: .*'adam' or 'adamw', got 'sgd'"),
        ({"stages": [{"frames": 1}] * 3}, r"at most two stages\."),
    ],
)
def test_errors_say_what_is_wrong_and_what_is_known(data: dict, message: str) -> None:
    with pytest.raises(StremnError, match="^r.toml: .*" + message):
        build(Recipe, data, "r.toml")


def test_all_errors_are_reported_together() -> None:
    with pytest.raises(StremnError, match=r"(?s)'a'.*'b'"):
        build(Recipe, {"a": 1, "b": 2}, "r.toml")


def test_configurations_are_immutable() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Train().lr = 1.0  # type: ignore[misc]


def test_override_copies_and_parses_values_as_toml() -> None:
    data = {"train": {"lr": 1}, "stages": [{"frames": 3}]}
    requests = ["train.lr=1e-4", "stages.0.frames=5", "new.a.b=[1, 2]", "name=bfloat16", "t=true"]
    result = override(data, [*requests, 'm={"" = 0.0, "a.b" = 1.0}', "path=~/data/x-1.png"])
    assert result["train"]["lr"] == 1e-4
    assert result["stages"][0]["frames"] == 5
    assert result["new"] == {"a": {"b": [1, 2]}}
    assert result["name"] == "bfloat16"
    assert result["t"] is True
    assert result["m"] == {"": 0.0, "a.b": 1.0}
    assert result["path"] == "~/data/x-1.png"
    assert data == {"train": {"lr": 1}, "stages": [{"frames": 3}]}


@pytest.mark.parametrize(
    "path",
    ["/home/me/my photos", "Zoë & co/über, all", "~/it's [here]", "2024 May/x", r"C:\my data\x"],
)
def test_paths_need_no_quotes_of_their_own(path: str) -> None:
    assert override({}, [f"data.path={path}"]) == {"data": {"path": path}}


@pytest.mark.parametrize(
    ("request_", "message"),
    [
        ("data.path=my photos", r"""keep the quotes .* as in 'data\.path="two words"'"""),
        ("train.lr", r"write key=value, as in train\.lr=1e-4"),
        ("=3", "write key=value"),
        ("train.lr=[1", r"value '\[1' of train\.lr: it is not TOML"),
        ("train.lr.x=1", r"Cannot set train\.lr\.x: train\.lr is a value, not a section"),
        ("stages.1.frames=3", "'1' must be an index below 1"),
        ("stages.x.frames=3", "'x' must be an index below 1"),
    ],
)
def test_override_errors(request_: str, message: str) -> None:
    with pytest.raises(StremnError, match=message):
        override({"train": {"lr": 1}, "stages": [{"frames": 3}]}, [request_])


def test_differences_are_dotted_and_sorted() -> None:
    before = {"a": {"x": 1, "y": [1, 2]}, "s": [{"n": 1}], "gone": 1}
    after = {"a": {"x": 2, "y": (1, 2)}, "s": [{"n": 1}, {"n": 2}], "new": 1}
    found = differences(before, after)
    assert [str(d) for d in found] == [
        "a.x: 1 -> 2",
        "gone: 1 -> None",
        "new: None -> 1",
        "s.1.n: None -> 2",
    ]
    assert found[0] == Difference("a.x", 1, 2)


def test_nothing_differs_from_its_copy() -> None:
    data = {"a": {}, "b": [], "c": [{"d": [1, {"e": "f"}]}, 2], "g": {"h": None}}
    assert differences(data, override(data, [])) == []
