"""Load and save weights of the prompt network."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from stremn.core.config import build
from stremn.core.weights import check_shapes, fill, read_weights, save_weights
from stremn.networks.presets import SegmentationConfig
from stremn.prompting.network import PromptNetwork, build_prompt_network

TASK = "prompts"
SHIPPED = "small"
"""Name of the weights that come with the package."""


def load_prompt_network(source: str | Path = SHIPPED) -> PromptNetwork:
    """Return the prompt network of a weights file; "small" is the one that is shipped.

    Raises:
        StremnError: no such file, or it is damaged or another task's.
    """
    path = _find(source)
    raw, tensors = read_weights(path, TASK)
    config = build(SegmentationConfig, raw, str(path))
    check_shapes(lambda: build_prompt_network(config), tensors, path)
    network = build_prompt_network(config)
    fill(network, tensors, path)
    return network.eval()


def prompt_config(source: str | Path = SHIPPED) -> SegmentationConfig:
    """Return the configuration of the network that `load_prompt_network` would build.

    Raises:
        StremnError: as `load_prompt_network`.
    """
    path = _find(source)
    return build(SegmentationConfig, read_weights(path, TASK)[0], str(path))


def _find(source: str | Path) -> Path:
    if str(source) == SHIPPED:
        return Path(str(resources.files("stremn").joinpath("weights", "prompt.safetensors")))
    return Path(source)


def save_prompt_network(network: PromptNetwork, config: SegmentationConfig, path: Path) -> None:
    """Write weights and configuration into one file."""
    save_weights(network, TASK, config.model_dump_json(), path)
