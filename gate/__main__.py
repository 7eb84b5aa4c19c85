"""``python -m gate`` is ``basin-gate``."""

from gate.cli import main

main()
