"""Names of earlier versions, now in other files of this package: they still work, and warn."""

from typing import TYPE_CHECKING

from stremn.moved import moved_names

if not TYPE_CHECKING:
    __getattr__ = moved_names(__name__)
