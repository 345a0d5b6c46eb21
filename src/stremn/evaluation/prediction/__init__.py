"""Scores of predicted frames."""
