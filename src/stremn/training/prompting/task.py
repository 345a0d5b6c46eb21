"""Train the prompt network from a recipe: network, pictures and loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from stremn.moved import moved_names
from stremn.prompting.network import PromptNetwork
from stremn.prompting.weights import save_prompt_network
from stremn.training.fit import CHECKPOINT, LAST, Phase
from stremn.training.prompting.cost import estimate_cost
from stremn.training.prompting.data import collate, open_pictures, prompt_samples
from stremn.training.prompting.losses import PromptLoss
from stremn.training.prompting.model import first_network, resumed_network
from stremn.training.prompting.recipe import PromptRecipe
from stremn.training.task import Plan, Task


class PromptTask(Task[PromptRecipe]):
    """Train the network that finds the object of a box or clicks."""

    recipe = PromptRecipe

    def plan(self, recipe: PromptRecipe, path: Path, out: Path, *, resume: bool) -> Plan:
        """Open and check the pictures, and build the network.

        It starts from the video network's weights; a resumed run has its weights in `out`.
        """
        section = recipe.prompts
        restored = resume and (out / CHECKPOINT).exists()
        network, config = resumed_network(out / LAST) if restored else first_network(section.start)
        # What was left out of the data must be left out again, or the samples would be others.
        check = not restored or recipe.data.check == "skip"
        samples = prompt_samples(recipe, open_pictures(recipe, path, check=check))
        loss = PromptLoss(section.rounds)
        return Plan(
            network,
            [Phase("prompts", recipe.train.steps, section.batch, samples, collate, loss)],
            export=lambda trained, file: save_prompt_network(
                cast(PromptNetwork, trained), config, file
            ),
        )

    def estimate(self, recipe: PromptRecipe, path: Path) -> str:
        """Check the pictures, and time steps on random ones."""
        return estimate_cost(recipe, path)


TASK = PromptTask()


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
