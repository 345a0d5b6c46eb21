"""`stremn web`: segment a video in a browser."""

from __future__ import annotations

from typing import Annotated

import typer

from stremn.cli.options import Device, Model
from stremn.cli.panels import FOLLOW
from stremn.cli.terminal import say


def register(app: typer.Typer) -> None:
    """Add the command."""
    app.command(rich_help_panel=FOLLOW)(web)


def web(
    host: Annotated[
        str, typer.Option(help="Address to listen on; 0.0.0.0 lets other computers open the page.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on.")] = 7860,
    max_upload: Annotated[
        int, typer.Option(min=1, help="Maximum size of an uploaded video in MB.")
    ] = 2000,
    max_frames: Annotated[
        int, typer.Option(min=1, help="Maximum number of frames of a video; longer ones are cut.")
    ] = 20_000,
    model: Model = "small",
    device: Device = "auto",
) -> None:
    """Segment videos on a web page: starts a server and prints the address.

    Example: stremn web
    """
    from stremn.web.guard import is_loopback
    from stremn.web.projects import Limits
    from stremn.web.serving import serve

    if not is_loopback(host):
        say(
            "Warning: other computers can reach this page. Anyone with the address and its token "
            "can use this computer's time and disk. Traffic is not encrypted."
        )

    def announce(address: str) -> None:
        say(f"Open {address} in a browser. Ctrl-C ends it.")

    limits = Limits(upload=max_upload * 10**6, frames=max_frames)
    serve(model=model, device=device, host=host, port=port, limits=limits, announce=announce)
