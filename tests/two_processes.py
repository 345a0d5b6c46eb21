"""One process of a small training; started by torchrun from test_training.py."""

import os
import sys
from pathlib import Path

from torch import nn

from stremn.training import fit
from test_training import make_config, make_model, make_phases, squared_error

if __name__ == "__main__":
    out, rank = Path(sys.argv[1]), os.environ["RANK"]
    model = make_model()
    model[2] = nn.Identity()
    model[0].unused = nn.Linear(2, 2)  # as an update key that no eviction needed
    phases = make_phases(12, squared_error)
    fit(model, phases, make_config(12, micro_batch=2, validate_every=6), out=out)
    seen = [f"{phase.name}{index}" for phase in phases for index in phase.dataset.seen]
    (out / f"seen_{rank}").write_text(" ".join(seen))
