"""Foundations that know no network: files, checkpoints, configuration, hardware."""
