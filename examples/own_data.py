"""A data set of your own: a reader for folders NAME.frames and NAME.masks that lie side by side."""

import sys
from pathlib import Path

from stremn import SegmentationSession
from stremn.data.readers.sequences import DAVIS_RULE, SequenceSet, StoredSequence, read_indices
from stremn.evaluation.segmentation.evaluation import evaluate
from stremn.evaluation.segmentation.run_description import RunDescription


def read_pairs(root: Path) -> SequenceSet:
    """Pair each frame with the mask of its name, where there is one (palette or grey PNG)."""
    found = []
    for folder in sorted(root.glob("*.frames")):
        frames = tuple(sorted(folder.iterdir()))
        masks = [folder.with_suffix(".masks") / f"{frame.stem}.png" for frame in frames]
        labels = tuple(mask if mask.is_file() else None for mask in masks)
        found.append(StoredSequence(folder.stem, frames, labels, read_indices))
    return SequenceSet("pairs", "all", tuple(found), DAVIS_RULE)


if __name__ == "__main__":
    data = read_pairs(Path(sys.argv[1]))
    run = RunDescription("small", "evidence", memory_slots=6, size=432, reach=0.5)
    report = evaluate(data, SegmentationSession.from_pretrained, Path("scores"), run)
    print(report.plain)
