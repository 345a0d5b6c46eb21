"""Errors that a user can fix: what is wrong, what was expected, what was given, what to do."""


class StremnError(ValueError):
    """An error in input, files or options that the user can fix; the message says how.

    The command line prints the message without a traceback and exits with code 2.
    """


class MissingExtraError(StremnError):
    """A feature needs an optional package that is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"This needs the package {package!r}, which is not installed. "
            f'Install it with: pip install "stremn[{extra}]"'
        )
