"""Scores of label maps: J, F, submissions."""
