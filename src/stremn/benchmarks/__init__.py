"""Measure speed and memory of a model."""
