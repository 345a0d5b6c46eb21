"""Names and numbers of the objects' categories."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

from stremn.errors import StremnError


@dataclass(frozen=True)
class Categories:
    """Names of the objects' categories; several objects may share one.

    Numbers begin with 1, in the order of the names. An object without a name is a category of its
    own, `object ID`, numbered ID after the named ones, so that a number never depends on which
    objects come later.
    """

    names: Mapping[int, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `1=cat,2=dog`.

        Raises:
            StremnError: another form, an id that is none, an id twice, an empty name.
        """
        names: dict[int, str] = {}
        for part in text.split(","):
            number, equals, name = (piece.strip() for piece in part.partition("="))
            if not equals or not number.isdecimal() or int(number) < 1 or not name:
                raise StremnError(
                    f'Names are given as "1=cat,2=dog" (object ids from 1), got {part.strip()!r}.'
                )
            if int(number) in names:
                raise StremnError(f"Object {number} is named twice; name it once.")
            names[int(number)] = name
        return cls(names)

    def _named(self) -> list[str]:
        return list(dict.fromkeys(self.names.values()))

    def number(self, item: int) -> int:
        """Return the number of an object's category, from 1."""
        named = self._named()
        return named.index(self.names[item]) + 1 if item in self.names else len(named) + item

    def name(self, item: int) -> str:
        """Return the name of an object's category."""
        return self.names.get(item, f"object {item}")

    def of(self, ids: Iterable[int]) -> dict[int, str]:
        """Return name by number of all named categories and those of `ids`, by ascending number."""
        table = {self.number(item): self.name(item) for item in (*self.names, *ids)}
        return dict(sorted(table.items()))
