"""Readers of data sets, and clips to train on."""
