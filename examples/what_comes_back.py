"""What comes back into view, with and without a memory: what_comes_back.py PHOTOS WITH WITHOUT OUT

PHOTOS is a folder of photos, WITH and WITHOUT are weights of recipes/prediction-photo-pans.toml,
OUT is a picture: first and last observed frame, the last of 6 predicted, without, with, the truth.
"""

import sys
from pathlib import Path

import cv2
import torch

from stremn.data.readers.photo_pans import photo_pans
from stremn.prediction.weights import load_predictor


def compare(photos: str, read: str, unread: str, out: str, clips: int = 60) -> torch.Tensor:
    """Draw the picture; return PSNR in dB of what came back (unread and read, clips, frames)."""
    pans = photo_pans(Path(photos), "test", 18, 64, length=clips, seed=2)
    models, scores, rows = [load_predictor(unread), load_predictor(read)], [], []
    for index in range(clips):
        clip, back = pans[index].float() / 255, pans.returned(index, 12)[:, None]
        with torch.inference_mode():
            played = [model.rollout(clip[None, :12], 12, 6, 12).frames[0, -6:] for model in models]
        errors = [((frames - clip[12:]).square() * back).sum((1, 2, 3)) for frames in played]
        scores.append(-10 * (torch.stack(errors) / (3 * back.sum((1, 2, 3)))).log10())
        rows.append(torch.cat([clip[0], clip[11], *(x[-1] for x in played), clip[-1]], dim=2))
    picture = (torch.cat(rows[:6], dim=1).clamp(0, 1) * 255).byte().permute(1, 2, 0).numpy()
    enlarged = cv2.resize(picture, None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    cv2.imwrite(out, enlarged[..., ::-1])
    return torch.stack(scores, dim=1)


if __name__ == "__main__":
    values = compare(*sys.argv[1:5])
    more = (values[1] - values[0]).mean(1)
    print("PSNR by frame, without and with:", values.mean(1))
    print(f"with - without: {more.mean():.2f}, standard error {more.std() / len(more) ** 0.5:.2f}")
