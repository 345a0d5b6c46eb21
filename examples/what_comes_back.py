"""What comes back into view, with and without a memory: what_comes_back.py PHOTOS WITH WITHOUT OUT

WITH and WITHOUT are weights of recipes/prediction-photo-pans.toml. OUT is a picture: first and last
observed frame, sixth predicted one without and with, the truth. STREMN_ALEXNET adds LPIPS."""

import os
import sys
from pathlib import Path

import cv2
import torch

from stremn.data.readers.photo_pans import photo_pans
from stremn.evaluation.prediction.metrics import lpips_metrics
from stremn.prediction.weights import load_predictor


def compare(photos: str, read: str, unread: str, out: str, clips: int = 60) -> torch.Tensor:
    """Return PSNR and LPIPS of what came back (measures, unread and read, clips, frames)."""
    pans = photo_pans(Path(photos), "test", 18, 64, length=clips, seed=2)
    models, scores, rows = [load_predictor(weights) for weights in (unread, read)], [], []
    lpips = [lpips_metrics()["lpips"]] if "STREMN_ALEXNET" in os.environ else []
    for index in range(clips):
        clip, back = pans[index][None].float() / 255, pans.returned(index, 12)[:, None]
        with torch.inference_mode():
            played = [model.rollout(clip[:, :12], 12, 6, 12).frames[:, -6:] for model in models]
            drawn, truth = torch.cat(played), clip[:, 12:]
            shown = torch.where(back, drawn, truth)
            errors = (shown - truth).square().sum((2, 3, 4)) / (3 * back.sum((1, 2, 3)))
            more = [measure.compute(shown, truth.expand_as(shown)) for measure in lpips]
        scores.append(torch.stack([-10 * errors.log10(), *more]))
        rows.append(torch.cat([*clip[0, [0, 11]], *drawn[:, -1], clip[0, -1]], dim=2))
    picture = (torch.cat(rows[:6], dim=1).clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    cv2.imwrite(out, cv2.resize(picture, None, fx=2, fy=2, interpolation=0)[..., ::-1])
    return torch.stack(scores, dim=2)


if __name__ == "__main__":
    print("PSNR, LPIPS by frame, without and with:", compare(*sys.argv[1:5]).mean(2))  # type: ignore
