"""Recipes are found by file or by name."""

from pathlib import Path

import pytest

from stremn.errors import StremnError
from stremn.training.shipped_recipes import find_recipe, shipped_recipes

RECIPES = Path(__file__).parents[2] / "recipes"


def test_every_recipe_of_the_repository_is_shipped():
    assert shipped_recipes() == {path.stem: path for path in RECIPES.glob("*.toml")}


@pytest.mark.parametrize("name", ["small-video", "small-video.toml", "recipes/small-video"])
def test_a_shipped_recipe_is_found_by_name(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert find_recipe(name) == RECIPES / "small-video.toml"


def test_a_file_comes_before_a_shipped_recipe(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "small-video.toml").touch()
    assert find_recipe("small-video.toml") == Path("small-video.toml")


@pytest.mark.parametrize("name", ["smal-video", "small-video.yaml"])
def test_an_unknown_recipe_is_refused_with_the_names(name):
    with pytest.raises(StremnError, match=f"no recipe {name}.*small-video, "):
        find_recipe(name)
