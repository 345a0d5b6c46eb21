"""Train the prompt network from a recipe: network, pictures and loss."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, cast

from stremn.moved import moved_names
from stremn.networks.pretrained import load_model
from stremn.prompting.network import PromptNetwork, build_prompt_network, start_from
from stremn.prompting.weights import save_prompt_network
from stremn.training.fit import Phase
from stremn.training.prompting.data import PromptSamples, collate, open_pictures
from stremn.training.prompting.losses import PromptLoss
from stremn.training.prompting.recipe import PromptRecipe
from stremn.training.task import Plan, Task


class PromptTask(Task[PromptRecipe]):
    """Train the network that finds the object of a box or clicks."""

    recipe = PromptRecipe

    def plan(self, recipe: PromptRecipe, path: Path, out: Path, *, resume: bool) -> Plan:
        """Open the pictures, and start the network from the video network's weights."""
        section = recipe.prompts
        stills = open_pictures(recipe, path)
        video = load_model(section.start)
        # A prompt network sees a single frame: there is nothing to summarize.
        config = video.config.model_copy(update={"summary": False})
        network = build_prompt_network(config)
        start_from(network, video.model)
        samples = PromptSamples(
            list(stills.values()),
            [recipe.stills[name].weight for name in stills],
            recipe.train.steps * section.batch,
            section.side,
            recipe.train.seed,
            section.pasted,
        )
        loss = PromptLoss(section.rounds)
        return Plan(
            network,
            [Phase("prompts", recipe.train.steps, section.batch, samples, collate, loss)],
            export=lambda trained, file: save_prompt_network(
                cast(PromptNetwork, trained), config, file
            ),
        )

    def estimate(self, recipe: PromptRecipe, path: Path) -> str:
        """Count steps and pictures."""
        sets = ", ".join(f"{name} {len(s)}" for name, s in open_pictures(recipe, path).items())
        return f"{recipe.train.steps} steps of {recipe.prompts.batch} pictures from {sets}."


TASK = PromptTask()


if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
