#!/usr/bin/env python3
"""Set up this checkout and run it: ``python3 dev.py demo``, ``test`` or ``check``.

Needs nothing but Python 3.10 or newer: makes ``.venv`` beside this file and installs the project into it.
Words after the command go to the tool behind it (``python3 dev.py test -k tiles``).
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
BIN = VENV / ("Scripts" if sys.platform == "win32" else "bin")


def run(*command: str | Path) -> None:
    """Run one command in the checkout; end with its exit status where it fails."""
    status = subprocess.run([str(word) for word in command], cwd=ROOT, check=False).returncode
    if status:
        sys.exit(status)


def install(extras: str) -> None:
    """Make the environment where there is none, and bring it up to date with pyproject.toml."""
    if not (BIN / ("python.exe" if sys.platform == "win32" else "python")).exists():
        print(f"making {VENV}", flush=True)
        run(sys.executable, "-m", "venv", VENV)
    print(f"installing fastssim[{extras}] (the first time takes minutes)", flush=True)
    pip = (BIN / "python", "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    run(*pip, "--constraint", ROOT / "constraints.txt", "--editable", f".[{extras}]")


def demo(words: list[str]) -> None:
    """Run the main job on the embedded textures: train, segment, evaluate, report."""
    install("ae")
    run(BIN / "ae", "demo", *words)


def test(words: list[str]) -> None:
    """Run the test suite."""
    install("ae,bench,test")
    run(BIN / "python", "-m", "pytest", "--numprocesses", "auto", "--dist", "worksteal", *words)


def check(words: list[str]) -> None:
    """Lint, check the format and the types."""
    install("ae,bench,test")
    run(BIN / "ruff", "check", *words)
    run(BIN / "ruff", "format", "--check")
    run(BIN / "mypy")


COMMANDS = {"demo": demo, "test": test, "check": check}


def main() -> None:
    """Read the command and run it."""
    if sys.version_info < (3, 10):  # noqa: UP036  # an older Python is what this line is for
        sys.exit(f"fastssim needs Python 3.10 or newer, this is {sys.version.split()[0]}")
    name, *words = sys.argv[1:] or ["help"]
    if name not in COMMANDS:
        lines = [f"  {name:6} {function.__doc__}" for name, function in COMMANDS.items()]
        sys.exit("\n".join(["usage: python3 dev.py COMMAND [WORDS]", *lines]))
    COMMANDS[name](words)


if __name__ == "__main__":
    main()
