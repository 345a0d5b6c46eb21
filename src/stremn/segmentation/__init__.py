"""Video object segmentation: tracks, sessions, reports."""

from typing import TYPE_CHECKING

from stremn.moved import moved_names

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
