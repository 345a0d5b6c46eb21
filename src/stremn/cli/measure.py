"""`stremn bench`, `analyze`, `export`: what it costs, and what the memory did."""

from __future__ import annotations

import typer


def register(app: typer.Typer) -> None:
    """Add the verbs of this file."""
