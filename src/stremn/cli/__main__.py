"""`python -m stremn.cli`, for launchers of several processes."""

from stremn.cli import main

main()
