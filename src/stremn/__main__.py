"""`python -m stremn`: the command line."""

from stremn.cli import main

main()
