"""Data to train and evaluate on: readers of data sets, makers of clips."""
