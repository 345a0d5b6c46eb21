"""The command line: `stremn <command>`. Commands only read their options and call the library."""

from stremn.cli.app import main

__all__ = ["main"]
