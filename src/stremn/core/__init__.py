"""Basics without networks: files, checkpoints, configuration, hardware."""
