"""Check the pictures of a prompt recipe before the first step."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping
from dataclasses import replace
from pathlib import Path

from stremn.data.readers.checking import telling
from stremn.data.readers.paths import place
from stremn.data.readers.problems import DataProblem, refuse
from stremn.data.readers.still_sets import check_pairing, check_stills, without
from stremn.data.readers.stills import StillImages
from stremn.training.prompting.recipe import PromptRecipe

logger = logging.getLogger("stremn.training.fit")


def checked_pictures(
    recipe: PromptRecipe, opened: Mapping[str, StillImages], held_out: Collection[str]
) -> dict[str, StillImages]:
    """Read all pictures of the open sets; refuse those that cannot be used, or leave them out.

    `held_out` are names of pictures that are not used, and may lack a mask.

    Raises:
        StremnError: pictures cannot be used and `data.check` refuses them, or none is left.
    """
    broken = {name: _broken(name, stills) for name, stills in opened.items()}
    problems = [problem for each in broken.values() for problem in each]
    for section in recipe.stills.values():
        unpaired = check_pairing(place(section.path), section.layout)
        problems += [problem for problem in unpaired if Path(problem.where).stem not in held_out]
    if recipe.data.check == "refuse":
        refuse(problems)
    for problem in problems:
        logger.warning("left out: %s: %s", problem.where, problem.reason)
    return {name: without(stills, broken[name]) for name, stills in opened.items()}


def _broken(name: str, stills: StillImages) -> list[DataProblem]:
    """List the pictures of a set that cannot be used; advice names the keys of prompt recipes."""
    return [
        replace(problem, reason=problem.reason.replace("data.stills.<name>", f"stills.{name}"))
        for problem in check_stills(stills, telling(name, logger))
    ]
