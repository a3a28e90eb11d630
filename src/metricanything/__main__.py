"""`python -m metricanything`: the command line, where its script is not on the path."""

from metricanything.cli import main

main()
