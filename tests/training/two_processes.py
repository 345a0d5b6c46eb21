"""One process of a small training; started twice from test_training.py."""

import os
import sys
from pathlib import Path

import torch
from torch import nn

from stremn.training.fit import fit
from stremn.training.processes import leave_processes


def run(out: Path, rank: int) -> None:
    """Train in this process, and write down which samples it drew."""
    import test_training as setup

    model = setup.make_model()
    model[2] = nn.Identity()
    model[0].unused = nn.Linear(2, 2)  # as an update key that no eviction needed
    phases = setup.make_phases(12, setup.squared_error)
    device = "cpu" if torch.cuda.is_available() else "auto"  # as recipes have it
    config = setup.make_config(12, micro_batch=2, validate_every=6, device=device)
    fit(model, phases, config, out=out)
    seen = [f"{phase.name}{index}" for phase in phases for index in phase.dataset.seen]
    (out / f"seen_{rank}").write_text(" ".join(seen))


if __name__ == "__main__":
    run(Path(sys.argv[1]), int(os.environ["RANK"]))
    leave_processes()
