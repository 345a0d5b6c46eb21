"""Configuration: frozen pydantic models read from TOML, with errors that help.

A recipe is a TOML file. `read_toml` reads it, `override` applies `a.b=value` requests, `build`
checks it against a model and explains what is wrong, `differences` compares two of them.
"""

from __future__ import annotations

import difflib
import json
import re
import tomllib
import types
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    NamedTuple,
    TypeVar,
    Union,
    get_args,
    get_origin,
)

from pydantic import BaseModel, ConfigDict, ValidationError, model_validator

from stremn.errors import StremnError
from stremn.moved import RENAMED_KEYS, warn_of, with_current_keys

ConfigT = TypeVar("ConfigT", bound=BaseModel)

# A value that is not TOML is taken as a string if it reads like a name or a path.
_BARE_WORD = re.compile(r"[A-Za-z_./~$][\w./~$:-]*")
# So is a path, whatever is in it; a list, a table or a string in quotes begins otherwise.
_PATH = re.compile(r"[\w./~$][^\n]*[/\\][^\n]*|[./~$][^\n]*")


class Config(BaseModel):
    """Base of every configuration: immutable, and an unknown key is an error.

    Keys of earlier versions are taken, and warn.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    @model_validator(mode="before")
    @classmethod
    def _keys_of_earlier_versions(cls, values: Any) -> Any:
        where = cls.__name__.removesuffix("Section").removesuffix("Config").lower()
        known = cls.model_fields
        return with_current_keys(values, where, known) if isinstance(values, dict) else values

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            if RENAMED_KEYS.get(name) in type(self).model_fields:
                warn_of(type(self).__name__, name, RENAMED_KEYS[name])
                return getattr(self, RENAMED_KEYS[name])
            return super().__getattr__(name)


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; raise `StremnError` if it is missing or is not TOML."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise StremnError(f"Cannot read the recipe {path}: {error.strerror}.") from error
    except ValueError as error:
        raise StremnError(f"{path} is not text in UTF-8: {error}.") from error
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise StremnError(f"{path} is not valid TOML: {error}.") from error


def read_json(text: str | bytes, source: str) -> dict[str, Any]:
    """Read a JSON object; raise `StremnError`, which calls it `source`, if it is none."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or nested without end
        raise StremnError(f"{source} is not valid JSON: {error}.") from error
    if not isinstance(found, dict):
        raise StremnError(f"{source} must be a JSON object, got {type(found).__name__}.")
    return found


def override(data: Mapping[str, Any], requests: Iterable[str]) -> dict[str, Any]:
    """Return a copy of `data` with each request "a.b=value" applied.

    The value is TOML (`1e-4`, `true`, `[3, 5]`, `"text"`); a bare word is taken as a string,
    and so is a path, which may hold spaces. A number in the key selects an entry of a list, from 0:
    `stages.0.frames=5`.
    """
    result: dict[str, Any] = _copy(data)
    for request in requests:
        key, separator, text = request.partition("=")
        if not separator or not key.strip():
            raise StremnError(
                f"Cannot understand {request!r}: write key=value, as in train.lr=1e-4."
            )
        _assign(result, key.strip(), _parse_value(key.strip(), text.strip()))
    return result


def build(model: type[ConfigT], data: Mapping[str, Any], source: str) -> ConfigT:
    """Check `data` against `model`; `source` names where it came from in error messages."""
    try:
        return model.model_validate(data)
    except ValidationError as error:
        lines = [_explain(model, dict(detail)) for detail in error.errors()]
        raise StremnError(f"{source}: " + " ".join(lines)) from error


class Difference(NamedTuple):
    """A key whose value differs between two configurations; None where it is absent."""

    key: str
    before: Any
    after: Any

    def __str__(self) -> str:
        return f"{self.key}: {self.before!r} -> {self.after!r}"


def differences(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[Difference]:
    """List the dotted keys that differ, sorted; values are compared as plain data."""
    flat_before, flat_after = dict(_flatten(before)), dict(_flatten(after))
    return [
        Difference(key, flat_before.get(key), flat_after.get(key))
        for key in sorted(flat_before.keys() | flat_after.keys())
        if flat_before.get(key) != flat_after.get(key)
    ]


def _copy(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _copy(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_copy(entry) for entry in value]
    return value


def _flatten(value: Any, prefix: str = "") -> Iterable[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for key, entry in value.items():
            yield from _flatten(entry, f"{prefix}.{key}" if prefix else str(key))
    elif isinstance(value, list | tuple) and any(isinstance(entry, Mapping) for entry in value):
        for index, entry in enumerate(value):
            yield from _flatten(entry, f"{prefix}.{index}")
    else:
        yield prefix, list(value) if isinstance(value, tuple) else value


def _parse_value(key: str, text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        if _BARE_WORD.fullmatch(text) or _PATH.fullmatch(text):
            return text
        raise StremnError(
            f"Cannot understand the value {text!r} of {key}: it is not TOML. "
            'Numbers, true, false, [lists] and "strings" are; keep the quotes of a string from the '
            f"""shell, as in '{key}="two words"'."""
        ) from None


def _assign(data: dict[str, Any], dotted: str, value: Any) -> None:
    *path, last = dotted.split(".")
    place: Any = data
    for part in path:
        if isinstance(place, list):
            place = place[_index(place, part, dotted)]
        elif isinstance(place, dict):
            place = place.setdefault(part, {})
    if isinstance(place, list):
        place[_index(place, last, dotted)] = value
    elif isinstance(place, dict):
        place[last] = value
    else:
        raise StremnError(f"Cannot set {dotted}: {'.'.join(path)} is a value, not a section.")


def _index(entries: list[Any], part: str, dotted: str) -> int:
    if part.isdecimal() and int(part) < len(entries):
        return int(part)
    raise StremnError(
        f"Cannot set {dotted}: {part!r} must be an index below {len(entries)}, the list's length."
    )


def _explain(model: type[BaseModel], detail: Mapping[str, Any]) -> str:
    """Turn one pydantic error into a sentence."""
    location = [str(part) for part in detail["loc"]]
    dotted = ".".join(location)
    where = f"{dotted}: " if location else ""
    if detail["type"] == "extra_forbidden":
        known = sorted(_fields_at(model, location[:-1]))
        close = difflib.get_close_matches(location[-1], known, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        section = ".".join(location[:-1]) or "the top level"
        return f"Unknown key {dotted!r}.{hint} Known keys of {section}: {', '.join(known)}."
    if detail["type"] == "missing":
        return f"The key {dotted!r} is missing."
    if detail["type"] == "value_error":  # raised by one of our own validators: already a sentence
        return f"{where}{str(detail['ctx']['error']).rstrip('.')}."
    return f"{where}{detail['msg']}, got {detail['input']!r}."


def _fields_at(model: type[BaseModel], path: list[str]) -> set[str]:
    """Return names of the fields that the section at `path` may have (every member of a union)."""
    annotations: list[Any] = [model]
    for part in path:
        stepped = [inner for annotation in annotations for inner in _step(annotation, part)]
        # A union adds its tag to the path, which is no step into the data.
        annotations = stepped or annotations
    models = [inner for annotation in annotations for inner in _models(annotation)]
    return {name for found in models for name in found.model_fields}


def _step(annotation: Any, part: str) -> list[Any]:
    found: list[Any] = []
    for member in _members(annotation):
        if isinstance(member, type) and issubclass(member, BaseModel):
            if part in member.model_fields:
                found.append(member.model_fields[part].annotation)
        elif get_origin(member) is not None and get_args(member):
            found.append(get_args(member)[-1 if get_origin(member) is dict else 0])
    return found


def _models(annotation: Any) -> list[type[BaseModel]]:
    return [m for m in _members(annotation) if isinstance(m, type) and issubclass(m, BaseModel)]


def _members(annotation: Any) -> list[Any]:
    """Split a union into its members; look through `Annotated`."""
    if get_origin(annotation) is Annotated:
        return _members(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return [inner for member in get_args(annotation) for inner in _members(member)]
    return [annotation]
