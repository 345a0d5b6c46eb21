"""The smallest workload of the benchmark."""

from stremn.benchmarks.workload import Workload

TINY = Workload(
    seconds=0.02,
    objects=(1, 2),
    memory_slots=(1, 2),
    sizes=("240p",),
    models=("small",),
    growth_frames=8,
    flat_frames=30,
    flat_side=64,
    pipeline_frames=4,
)
