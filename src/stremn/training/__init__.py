"""The training loop, which knows no task; below it what each task adds."""
