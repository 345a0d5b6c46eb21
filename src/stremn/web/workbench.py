"""HTTP routes of the page's workbench: state, pictures, changes.

Every route but the static files names a project by its key, which only its visitor knows.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from http import HTTPStatus
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

from stremn.core.config import build
from stremn.errors import StremnError
from stremn.media.masks import read_mask
from stremn.web.options import Options
from stremn.web.pictures import colors, mask_picture, thumbnail
from stremn.web.project import Project
from stremn.web.projects import Projects

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response
    from starlette.routing import BaseRoute

STATIC = Path(str(resources.files("stremn").joinpath("web", "static")))
"""Folder of the scripts and styles that the browser loads."""

_LARGEST_BODY = 2 * 10**6
_LARGEST_MASK = 64 * 10**6
_FOR_EVER = {"cache-control": "private, max-age=86400, immutable"}
_NOW_ONLY = {"cache-control": "no-store"}


def routes(projects: Projects) -> list[BaseRoute]:
    """Return the workbench's routes, below /workbench."""
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    def route(path: str, answer: Callable[..., Any], method: str) -> Route:
        return Route(
            f"/workbench/project/{{key}}{path}", _Answer(projects, answer), methods=[method]
        )

    return [
        route("/state", state, "GET"),
        route("/frame/{index:int}.jpg", _frame, "GET"),
        route("/mask/{index:int}.png", _mask, "GET"),
        route("/memory/{index:int}", _memory, "GET"),
        route("/thumbnail/{index:int}/{item:int}.jpg", _thumbnail, "GET"),
        route("/download/{name:str}", _download, "GET"),
        route("/do/{what:str}", _do, "POST"),
        route("/mask-file/{index:int}", _mask_file, "POST"),
        Mount("/workbench/static", StaticFiles(directory=STATIC)),
    ]


class _Answer:
    """Answers a request about a project in a thread, and returns StremnErrors as text."""

    def __init__(self, projects: Projects, answer: Callable[..., Response]) -> None:
        self._projects = projects
        self._answer = answer

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.concurrency import run_in_threadpool
        from starlette.requests import Request

        request = Request(scope, receive)
        project = self._projects.get(request.path_params["key"])
        if project is None:
            gone = "This video is no longer open. Open it again."
            response = _json({"error": gone}, HTTPStatus.NOT_FOUND)
        else:
            try:
                body = await _body(request)
                response = await run_in_threadpool(self._answer, project, body, **_numbers(request))
            except StremnError as error:
                response = _json({"error": str(error)}, HTTPStatus.UNPROCESSABLE_ENTITY)
        await response(scope, receive, send)


def _numbers(request: Request) -> dict[str, Any]:
    return {name: x for name, x in request.path_params.items() if name != "key"}


async def _body(request: Request) -> bytes:
    """Return a request's body; raises StremnError if it is too large."""
    most = _LARGEST_MASK if "/mask-file/" in request.url.path else _LARGEST_BODY
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > most:
            raise StremnError(f"At most {most // 10**6} MB can be sent here.")
    return bytes(body)


def _json(content: Any, status: int = HTTPStatus.OK) -> Response:
    from starlette.responses import JSONResponse

    return JSONResponse(content, status, _NOW_ONLY)


# ---------------------------------------------------------------- looking


def state(project: Project, body: bytes = b"") -> Response:
    """Return the state that the workbench shows, without pictures."""
    work = project.work
    height, width = project.shelf.size
    return _json(
        {
            "version": project.version,
            "frames": project.shelf.count,
            "notice": project.shelf.notice,
            "width": width,
            "height": height,
            "fps": project.shelf.fps,
            "objects": [{"id": i, "name": n, "color": colors(i)} for i, n in work.objects.items()],
            "drawn": sorted(work.given()),
            "followed": work.followed(),
            "status": project.status.to_json(),
            "export": project.export_status.to_json(),
            "can_undo": project.can_undo,
            "can_redo": project.can_redo,
        }
    )


def _frame(project: Project, body: bytes, index: int) -> Response:
    from starlette.responses import FileResponse

    return FileResponse(project.shelf.path(index), headers=_FOR_EVER)


def _mask(project: Project, body: bytes, index: int) -> Response:
    return _picture(mask_picture(project.labels(index)), "image/png", _NOW_ONLY)


def _thumbnail(project: Project, body: bytes, index: int, item: int) -> Response:
    picture = thumbnail(project.shelf.picture(index), project.labels(index), item)
    return _picture(picture, "image/jpeg", _FOR_EVER)


def _picture(content: bytes, kind: str, headers: dict[str, str]) -> Response:
    from starlette.responses import Response

    return Response(content, headers=headers, media_type=kind)


def _memory(project: Project, body: bytes, index: int) -> Response:
    """Return the content of the memory after a frame: for each object, the frames in its slots."""
    row = project.work.row(index)
    objects = [
        {"id": int(item), "slots": one["slots"], "pinned": one["pinned"]}
        for item, one in row.get("objects", {}).items()
        if int(item) in project.work.objects
    ]
    return _json({"frame": index, "bytes": row.get("bytes", 0), "objects": objects})


def _download(project: Project, body: bytes, name: str) -> Response:
    from starlette.responses import FileResponse

    return FileResponse(project.download(name), filename=name, headers=_NOW_ONLY)


# ---------------------------------------------------------------- changing


def _mask_file(project: Project, body: bytes, index: int) -> Response:
    path = project.folder / f"mask-{secrets.token_hex(8)}"
    path.write_bytes(body)
    try:
        project.use_mask(index, read_mask(path, project.shelf.size))
    except StremnError as error:
        words, _, _ = str(error).partition(" Repair it with:")  # that names a file of the server
        raise StremnError(words.replace(f" {path}", "")) from error
    finally:
        path.unlink(missing_ok=True)
    return state(project)


def _do(project: Project, body: bytes, what: str) -> Response:
    """Apply a change and return the new state."""
    try:
        told = json.loads(body or b"{}")
        change = _CHANGES[what]
        change(project, told)
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        if isinstance(error, StremnError):
            raise
        raise StremnError("The page asked for something that the server does not know.") from error
    return state(project)


def _whole(told: Any, name: str) -> int:
    value = told[name]
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(name)
    return value


_CHANGES: dict[str, Callable[[Project, Any], object]] = {
    "mark": lambda p, told: p.mark(_whole(told, "frame"), _whole(told, "object"), told["mark"]),
    "clear": lambda p, told: p.clear(_whole(told, "frame")),
    "add": lambda p, told: p.add_object(str(told.get("name", ""))),
    "name": lambda p, told: p.name_object(_whole(told, "object"), str(told["name"])),
    "remove": lambda p, told: p.remove_object(_whole(told, "object")),
    "undo": lambda p, told: p.undo(),
    "redo": lambda p, told: p.redo(),
    "follow": lambda p, told: p.follow(build(Options, told, "The settings")),
    "pause": lambda p, told: p.pause(),
    "export": lambda p, told: p.export([str(kind) for kind in told["formats"]]),
}
