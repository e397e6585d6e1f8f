"""`python -m service.cli`, the same as `regsearch`."""

from service.cli import main

main()
