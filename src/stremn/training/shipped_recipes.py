"""Find the recipes that come with the package by their names."""

from __future__ import annotations

from pathlib import Path

from stremn.errors import StremnError

_PACKAGE = Path(__file__).parents[1]
_FOLDERS = (_PACKAGE / "recipes", _PACKAGE.parents[1] / "recipes")
"""In an installed package, and in a checkout of the repository."""


def find_recipe(name: str | Path) -> Path:
    """Return the file of a recipe: a path, or the name of a shipped recipe such as "small-video".

    Raises:
        StremnError: no such file and no shipped recipe of that name; the message lists the names.
    """
    path = Path(name)
    if path.is_file():
        return path
    shipped = shipped_recipes()
    if path.stem not in shipped or path.suffix not in ("", ".toml"):
        raise StremnError(
            f"There is no recipe {name}. Give a TOML file, or the name of a shipped recipe: "
            f"{', '.join(shipped)}."
        )
    return shipped[path.stem]


def shipped_recipes() -> dict[str, Path]:
    """Return the shipped recipes by name."""
    folder = next((each for each in _FOLDERS if each.is_dir()), _FOLDERS[0])
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}
