"""The page's server: gradio with the workbench's routes, behind a guard."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from stremn.errors import StremnError
from stremn.web.guard import Guard, is_loopback, new_token
from stremn.web.page import build_page, gradio_module
from stremn.web.projects import LIMITS, Limits, Projects
from stremn.web.workbench import STATIC, routes

if TYPE_CHECKING:
    import gradio


def serve(
    *,
    model: str = "small",
    device: str = "auto",
    host: str = "127.0.0.1",
    port: int = 7860,
    limits: Limits = LIMITS,
    announce: Callable[[str], None],
) -> None:
    """Show the page until it is interrupted; `announce` is called with its address once it runs.

    If other computers can reach it, the address has a token; requests without it are refused.

    Raises:
        MissingExtraError: gradio is not installed.
        StremnError: no such port, or the port is taken.
    """
    if not 0 <= port <= 65_535:
        raise StremnError(f"--port must be from 0 to 65535, got {port}. 7860 is usual.")
    blocks, projects = build_page(model, device, limits)
    try:
        address = launch(blocks, projects, host, port, limits, page_style(gradio_module()))
    except OSError as error:
        raise StremnError(
            f"The page cannot be served on {host}:{port}: the port is taken, or the address is not "
            "this computer's. Choose another --port or --host."
        ) from error
    announce(address)
    blocks.block_thread()


def launch(
    blocks: gradio.Blocks,
    projects: Projects,
    host: str,
    port: int | None,
    limits: Limits = LIMITS,
    style: Mapping[str, Any] | None = None,
) -> str:
    """Start a page's server behind its `Guard` and return the address to open.

    Raises:
        OSError: the port is taken.
    """
    from starlette.middleware import Middleware

    token = None if is_loopback(host) else new_token()
    guard = Middleware(Guard, token=token, largest=limits.upload)
    _, address, _ = blocks.launch(
        server_name=host,
        server_port=port or None,
        prevent_thread_lock=True,
        quiet=True,
        share=False,
        ssr_mode=False,
        max_file_size=limits.upload,
        app_kwargs={"middleware": [guard], "routes": routes(projects)},
        **(style or {}),
    )
    return address if token is None else f"{address}?token={token}"


def page_style(gradio: Any) -> dict[str, Any]:
    """Return the page's style; fonts are the system's, so that it works without a network."""
    theme = gradio.themes.Soft(
        primary_hue="blue", font=["system-ui", "sans-serif"], font_mono=["monospace"]
    )
    css = (STATIC / "style.css").read_text(encoding="utf-8")
    return {"theme": theme, "css": css, "footer_links": []}
