"""Recipes, losses and validation of video prediction."""
