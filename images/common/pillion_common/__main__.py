"""`python -m pillion_common COMMAND`: the same as `pillion COMMAND`, for images without the console script."""

from pillion_common.command import main

main()
