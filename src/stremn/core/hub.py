"""Models on the Hugging Face hub: `owner/name`, or `owner/name@REVISION` to pin one state of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from huggingface_hub import hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

from stremn.errors import StremnError

UNREACHABLE = (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError)
"""The errors of a download that is not available."""

_REVISION = re.compile(r"(?!.*\.\.)[A-Za-z0-9][A-Za-z0-9._/-]*")


@dataclass(frozen=True)
class HubModel:
    """A repository of the hub, and its revision.

    Attributes:
        id: `owner/name`.
        revision: a commit, tag or branch; None is the newest state. Only a commit's 40 hex digits
            always stand for the same files.
    """

    id: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Parse `owner/name` or `owner/name@REVISION`; return None if it is neither.

        Raises:
            StremnError: the revision is no name of a commit, tag or branch.
        """
        name, at, revision = text.partition("@")
        if name.count("/") != 1 or name.startswith((".", "/", "~")):
            return None
        if at and not _REVISION.fullmatch(revision):
            raise StremnError(
                f"The revision of {text!r} is a commit, tag or branch of letters, digits and ._/-, "
                f"got {revision!r}. Write owner/name@REVISION."
            )
        return cls(name, revision or None)

    def download(self, file: str) -> Path:
        """Return the path of a file of the repository in the hub's cache; download it if needed.

        Raises one of `UNREACHABLE` if it is not available.
        """
        return Path(hf_hub_download(self.id, file, revision=self.revision))
