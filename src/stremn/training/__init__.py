"""The training loop, independent of tasks; each task has a package."""
