"""Which digit returns, with and without a memory: which_digit_returns.py OTHERS CLIPS FILES OUT

FILES are weights of recipes/prediction-hidden-digit-return-rule.toml. MSE of the first frame back
is printed, and the first file's minus each other's. OUT is a picture: a frame with the digit, the
last one observed, the first one back as predicted by the last file and by the first, the truth.
OTHERS digits stay in view. STREMN_DATA holds prediction/mnist."""

import sys
from pathlib import Path

import cv2
import torch

from stremn.data.readers.prediction_sets import ClipsSection, open_clips
from stremn.evaluation.prediction.evaluation import PredictionScores, as_predict, difference, score
from stremn.prediction.weights import load_predictor


def compare(others: int, count: int, weights: list[str], out: str) -> list[PredictionScores]:
    """Return the scores of all weights on test clips, and draw what the first and last predict."""
    task = {"kind": "hidden-digit", "path": "prediction/mnist", "size": 32, "side": 14}
    data = ClipsSection(**task, others=others)
    clips = open_clips(data, "test", observed=20, future=1, length=count)
    predict = {path: as_predict(load_predictor(path)) for path in weights}
    shown = torch.stack([clips[i] for i in range(min(6, count))]).float() / 255
    with torch.inference_mode():
        back = [predict[path](shown[:, :20], 1)[:, 0] for path in (weights[-1], weights[0])]
    rows = torch.cat([shown[:, 5], shown[:, 19], *back, shown[:, 20]], dim=3).clamp(0, 1)
    picture = torch.cat(list(rows[:, 0])).mul(255).byte().numpy()
    cv2.imwrite(out, cv2.resize(picture, None, fx=3, fy=3, interpolation=cv2.INTER_NEAREST))
    return [score(Path(p).parent.name, predict[p], clips, 20, 1) for p in weights]


if __name__ == "__main__":
    first, *rest = compare(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3:-1], sys.argv[-1])
    print(first.name, first.interval("mse"))
    for each in rest:
        print(each.name, each.interval("mse"), "first minus it", difference(first, each, "mse"))
