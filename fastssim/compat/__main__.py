"""Print the page of what is covered: ``python -m fastssim.compat > docs/drop-in-options.md``."""

from fastssim.compat.options import markdown

if __name__ == "__main__":
    print(markdown(), end="")  # noqa: T201  # what this command is for
