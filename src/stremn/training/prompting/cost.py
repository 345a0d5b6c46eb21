"""Estimate the cost of training a prompt network on this machine from steps on random pictures."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from stremn.errors import StremnError
from stremn.prompting.network import PromptNetwork
from stremn.training.optimization import parameter_groups
from stremn.training.prompting.data import PromptBatch, open_pictures, prompt_samples
from stremn.training.prompting.losses import PromptLoss, first_prompts
from stremn.training.prompting.model import first_network
from stremn.training.prompting.recipe import PromptRecipe
from stremn.training.step_time import StepTimer, seconds_per_item

SAMPLES = 8
"""Samples that are made to time them."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class StepTime:
    """Seconds of a training step with first prompts alone, and with all corrections of them."""

    first: float
    last: float

    @property
    def mean(self) -> float:
        """Mean over a training, in which every number of corrections is as likely."""
        return (self.first + self.last) / 2


def estimate_cost(recipe: PromptRecipe, path: Path) -> str:
    """Check the pictures, time steps on random ones, and return the cost of a full run.

    What is wrong with the pictures is logged first and does not stop the estimate.

    Raises:
        StremnError: no network can be built from `prompts.start`.
    """
    network, _ = first_network(recipe.prompts.start)
    data = _time_of_samples(recipe, path)
    logger.info("%s", data)
    parameter_groups(network, recipe.train)  # freezes what the recipe does not train
    seconds = _step_time(recipe, network)
    total = sum(p.numel() for p in network.parameters())
    trained = sum(p.numel() for p in network.parameters() if p.requires_grad)
    steps, section = recipe.train.steps, recipe.prompts
    return (
        f"{total:,} parameters, {trained:,} of them trained\n"
        f"{steps} steps of {section.batch} pictures of {section.side} px: {seconds.first:.2f} s a "
        f"step with first prompts alone, {seconds.last:.2f} s with {section.rounds} correction(s) "
        f"of each\n{data}\n"
        f"a full run takes about {seconds.mean * steps / 3600:.2f} hours"
    )


def _time_of_samples(recipe: PromptRecipe, path: Path) -> str:
    """Check the pictures as a training does, and time some samples; return either in words."""
    try:
        stills = open_pictures(recipe, path, check=True)
        samples = prompt_samples(recipe, stills)
        each = seconds_per_item(samples, len(samples), SAMPLES)
    except StremnError as error:
        return f"The data cannot be used, so training cannot start yet: {error}"
    sets = ", ".join(f"{name} {len(pictures)}" for name, pictures in stills.items())
    return f"pictures: {sets}; making a sample takes {each * 1000:.0f} ms on one core"


def _step_time(recipe: PromptRecipe, network: PromptNetwork) -> StepTime:
    """Time steps on one micro-batch of random pictures, scaled to the batch."""
    timer, section = StepTimer(network, recipe.train), recipe.prompts
    micro = min(recipe.train.micro_batch or section.batch, section.batch)
    batch = random_pictures(micro, section.side).to(timer.device)
    loss = PromptLoss(section.rounds)

    def seconds(corrections: int) -> float:
        def of_a_step() -> Tensor:
            rng = np.random.default_rng(0)
            prompts = first_prompts(rng, batch)
            return loss.with_corrections(network, batch, prompts, corrections, rng).loss

        return timer.seconds(of_a_step) * section.batch / micro

    seconds(section.rounds)  # the first step of all takes longer
    return StepTime(seconds(0), seconds(section.rounds))


def random_pictures(count: int, side: int) -> PromptBatch:
    """Return pictures of noise, each with a square object in the middle."""
    truth = torch.zeros(count, side, side, dtype=torch.bool)
    truth[:, side // 4 : side - side // 4, side // 4 : side - side // 4] = True
    nothing = torch.zeros_like(truth)
    frames = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8)
    return PromptBatch(frames, truth, nothing, nothing)
