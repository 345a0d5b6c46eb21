"""Recipes, losses and validation of video object segmentation."""
