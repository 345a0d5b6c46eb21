"""The constant-size memory as a part of another network, here one that classifies frames.

Whatever makes a key and a value map of a frame can have it; gradients flow through it.
"""

import torch
from torch import nn

from stremn.memory import MemoryState, Template, build_policy, read, write


class Recaller(nn.Module):
    """Frames -> class scores, with a memory of `slots` earlier frames."""

    def __init__(self, classes: int, key: int = 16, value: int = 32, slots: int = 4) -> None:
        super().__init__()
        self.features = nn.Sequential(nn.Conv2d(3, 64, 4, stride=4), nn.ReLU())
        self.key, self.value = nn.Conv2d(64, key, 1), nn.Conv2d(64, value, 1)
        self.head = nn.Linear(2 * value, classes)
        self.widths, self.slots = {"key": key, "value": value, "update_key": 0}, slots

    def forward(self, video: torch.Tensor, rule: str = "spread") -> torch.Tensor:
        """Scores "t b classes" of a video "t b 3 height width"; sides are multiples of 4."""
        grid = (video.shape[-2] // 4, video.shape[-1] // 4)
        memory = MemoryState.empty(video.shape[1], self.slots, grid, **self.widths)
        policy, scores = build_policy(rule), []
        for t, frame in enumerate(video):
            x = self.features(frame)
            key, value = (p(x).permute(0, 2, 3, 1) for p in (self.key, self.value))
            new = Template(key, value, key[..., :0], torch.ones(len(key), 2), frame=t)
            memory, _ = write(memory, new, policy, pin=t == 0)  # the first frame is kept
            seen = torch.cat([read(memory, key), value], dim=-1)
            scores.append(self.head(seen.mean((1, 2))))
        return torch.stack(scores)


if __name__ == "__main__":
    print(Recaller(classes=5)(torch.rand(20, 2, 3, 32, 48)).shape)
