"""The prompt network: the video network with the same frame and its prompt in the memory."""

from __future__ import annotations

from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from stremn.errors import StremnError
from stremn.memory.policies import build_policy
from stremn.memory.reading import read
from stremn.networks.backbones import STRIDE, build_backbone
from stremn.networks.model import Query, STReMN
from stremn.networks.presets import SegmentationConfig, build_stremn
from stremn.prompting.planes import PLANES
from stremn.segmentation.aggregation import upsampled

HINT_CHANNELS = 32
"""Channels between a prompt's planes and what they add to the read."""


class PromptNetwork(nn.Module):
    """Write a frame under its prompt, read it with the same frame, decode the object's mask.

    The memory, its `write` and its `read` are those of the video network. What was read is joined
    by a small convolution of the prompt itself, which says where to look.
    """

    def __init__(self, model: STReMN, value: int) -> None:
        """Build the network; `model` memorizes frames under `PLANES` masks of `value` channels."""
        super().__init__()
        self.model = model
        self.hint = nn.Sequential(
            nn.Conv2d(PLANES, HINT_CHANNELS, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(HINT_CHANNELS, 2 * value, 1),
        )
        self.policy = build_policy("oldest")  # one slot: it takes the only template
        last = self.hint[2]
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]

    def encode(self, frames: Float[Tensor, "b 3 height width"]) -> Query:
        """Encode frames in [0, 1]: once, whatever the number of prompts on them."""
        return self.model.encode_query(frames)

    def forward(
        self, query: Query, planes: Float[Tensor, "b planes height width"]
    ) -> Float[Tensor, "b height width"]:
        """Return each entry's logit at every pixel; `query` is of the same frames."""
        model, size = self.model, (planes.shape[-2], planes.shape[-1])
        masks = planes.to(query.stem.dtype)
        state = model.empty_state(len(planes), 1, size)
        state, _ = model.memorize(state, query, masks, frame=0, policy=self.policy)
        found = read(state, query.key, matching=model.matching)
        hint = self.hint(F.avg_pool2d(masks, STRIDE)).permute(0, 2, 3, 1)
        for_read, for_own = hint.tensor_split(2, dim=-1)
        logits = model.decode(found + for_read, replace(query, value=query.value + for_own))
        return upsampled(logits, query.frames)


def build_prompt_network(config: SegmentationConfig) -> PromptNetwork:
    """Return a prompt network with fresh weights, of the video network that `config` describes."""
    model = build_stremn(config, build_backbone(config.backbone), PLANES)
    return PromptNetwork(model.to(memory_format=torch.channels_last), config.value)


@torch.no_grad()
def start_from(network: PromptNetwork, video: STReMN) -> None:
    """Copy the weights of a video network, as far as they fit.

    The projections of the memory encoder see more planes: those that the video network has no
    weights for start small.

    Raises:
        StremnError: the video network is of another family (STM, STCN).
    """
    theirs = video.state_dict()
    missing = sorted(network.model.state_dict().keys() - theirs.keys())
    if missing:
        raise StremnError(
            f"The video network lacks {len(missing)} of the weights that a prompt network starts "
            f"from, such as {missing[0]}. Expected a network of the family 'stremn', for example "
            "the preset small; networks of STM and STCN have other parts."
        )
    features = video.query_encoder.channels[2]
    for name, weight in network.model.state_dict().items():
        source = theirs[name]
        if source.shape == weight.shape:
            weight.copy_(source)
        elif name.endswith("conv.weight"):
            weight.mul_(0.1)
            weight[:, :features] = source[:, :features]
