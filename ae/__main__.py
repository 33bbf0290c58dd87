"""``python -m ae`` is the command ``ae``."""

from ae.cli import main

main()
