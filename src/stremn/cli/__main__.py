"""`python -m stremn.cli`, as launchers of several processes want it."""

from stremn.cli import main

main()
