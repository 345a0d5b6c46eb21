"""Build the prompt network of a recipe before the first step."""

from __future__ import annotations

from pathlib import Path

from stremn.errors import StremnError
from stremn.networks.presets import SegmentationConfig
from stremn.networks.pretrained import load_model
from stremn.prompting.network import PromptNetwork, build_prompt_network, start_from
from stremn.prompting.weights import prompt_config


def first_network(start: str) -> tuple[PromptNetwork, SegmentationConfig]:
    """Return a prompt network with the weights of a video network, and its configuration.

    Raises:
        StremnError: there are no such weights, or they are STM's or STCN's.
    """
    video = load_model(start)
    if video.config.family != "stremn":
        raise StremnError(
            f"{start} (prompts.start) holds a network of the family {video.config.family!r}; a "
            "prompt network starts from one of the family 'stremn'. Give other weights, such as "
            "small."
        )
    # A prompt network sees a single frame: there is nothing to summarize.
    config = video.config.model_copy(update={"summary": False})
    network = build_prompt_network(config)
    start_from(network, video.model)
    return network, config


def resumed_network(own: Path) -> tuple[PromptNetwork, SegmentationConfig]:
    """Return a network for the checkpoint's weights, and its configuration.

    `own` are weights of the run itself: those that it started from may be gone.

    Raises:
        StremnError: `own` cannot be read.
    """
    config = prompt_config(own)
    return build_prompt_network(config), config
