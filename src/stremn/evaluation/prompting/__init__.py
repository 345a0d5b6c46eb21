"""Score the masks of boxes and clicks."""
