"""docs/paper-to-code.md names things that exist, and leaves nothing of the paper out."""

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "paper-to-code.md"
CODE = re.findall(r"`([^`]+)`", PAGE.read_text(encoding="utf-8"))
NAMES = sorted({text for text in CODE if "::" in text})
FILES = sorted({text for text in CODE if re.fullmatch(r"[\w/.-]+\.(py|toml|md)", text)})


def find(path: str) -> Path:
    """A file of the package, or of the repository."""
    inside = ROOT / "src" / "stremn" / path
    return inside if inside.is_file() else ROOT / path


@cache
def definitions(path: Path) -> set[str]:
    """Names that a module defines: functions, classes, constants, and "Class.member"."""
    names: set[str] = set()
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        for name in _bound(node):
            names.add(name)
            if isinstance(node, ast.ClassDef):
                names |= {f"{name}.{member}" for part in node.body for member in _bound(part)}
    return names


def _bound(node: ast.stmt) -> list[str]:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return [node.name]
    targets = node.targets if isinstance(node, ast.Assign) else []
    if isinstance(node, ast.AnnAssign):
        targets = [node.target]
    return [target.id for target in targets if isinstance(target, ast.Name)]


@pytest.mark.parametrize("text", NAMES)
def test_every_name_exists(text: str) -> None:
    path, name = text.split("::")
    assert find(path).is_file(), f"there is no file {path}"
    assert name in definitions(find(path)), f"{path} does not define {name}"


@pytest.mark.parametrize("text", FILES)
def test_every_file_exists(text: str) -> None:
    assert find(text).is_file()


def listed(kind: str) -> set[int]:
    """Numbers of equations, tables or figures in the left column; "Eq 6 to 9" are four."""
    numbers: set[int] = set()
    for line in PAGE.read_text(encoding="utf-8").splitlines():
        if not line.startswith("|"):
            continue
        left = line.split("|")[1]
        for first, last in re.findall(rf"{kind} (\d+)(?: to (\d+))?", left):
            numbers |= set(range(int(first), int(last or first) + 1))
    return numbers


@pytest.mark.parametrize(("kind", "count"), [("Eq", 12), ("Table", 6), ("Fig", 11)])
def test_nothing_of_the_paper_is_left_out(kind: str, count: int) -> None:
    assert listed(kind) == set(range(1, count + 1))


def test_every_section_is_there() -> None:
    text = PAGE.read_text(encoding="utf-8")
    for section in ("Sec 3.1", "Sec 3.2", "Sec 3.3", "Sec 4.1.1", "Sec 4.1.2", "Sec 4.1.3"):
        assert f"| {section}" in text
    for section in ("Section 4.2", "Section 4.3"):
        assert f"## {section}" in text
    for appendix in "ABCD":
        assert re.search(rf"^\| {appendix}[:,]", text, re.MULTILINE)
