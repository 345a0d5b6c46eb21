"""What comes back into view, with and without a memory: what_comes_back.py PHOTOS WITH WITHOUT OUT

PHOTOS is a folder of photos, WITH and WITHOUT are weights of recipes/prediction-photo-pans.toml,
OUT is a picture: first and last observed frame, the last of 6 predicted, without, with, the truth.
LPIPS is measured too if STREMN_ALEXNET names AlexNet's weights.
"""

import os
import sys
from pathlib import Path

import cv2
import torch

from stremn.data.readers.photo_pans import photo_pans
from stremn.evaluation.prediction.metrics import lpips_metrics
from stremn.prediction.weights import load_predictor


def compare(photos: str, read: str, unread: str, out: str, clips: int = 60) -> torch.Tensor:
    """Draw the picture; score what came back (measures, unread and read, clips, frames).

    The measures are PSNR in dB and, with AlexNet's weights, LPIPS. Where the last observed frame
    shows a place, the truth stands in for what was predicted.
    """
    pans = photo_pans(Path(photos), "test", 18, 64, length=clips, seed=2)
    models, scores, rows = [load_predictor(unread), load_predictor(read)], [], []
    distance = lpips_metrics()["lpips"] if "STREMN_ALEXNET" in os.environ else None
    for index in range(clips):
        clip, back = pans[index].float() / 255, pans.returned(index, 12)[:, None]
        with torch.inference_mode():
            played = [model.rollout(clip[None, :12], 12, 6, 12).frames[0, -6:] for model in models]
            shown = torch.stack([torch.where(back, frames, clip[12:]) for frames in played])
            errors = (shown - clip[12:]).square().sum((2, 3, 4)) / (3 * back.sum((1, 2, 3)))
            measures = [-10 * errors.log10()]
            if distance is not None:
                measures.append(distance.compute(shown, clip[None, 12:].expand_as(shown)))
        scores.append(torch.stack(measures))
        rows.append(torch.cat([clip[0], clip[11], *(x[-1] for x in played), clip[-1]], dim=2))
    picture = (torch.cat(rows[:6], dim=1).clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    enlarged = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(out, enlarged[..., ::-1])
    return torch.stack(scores, dim=2)


if __name__ == "__main__":
    given, with_memory, without, picture = sys.argv[1:5]
    measured = compare(given, with_memory, without, picture)
    for name, values in zip(("PSNR", "LPIPS"), measured, strict=False):
        more = (values[1] - values[0]).mean(1)
        print(f"{name} by frame, without and with:", values.mean(1))
        error = more.std() / len(more) ** 0.5
        print(f"with - without: {more.mean():.3f}, standard error {error:.3f}")
