"""Training: the loop that knows no task, clip losses, recipes."""
