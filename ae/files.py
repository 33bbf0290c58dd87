"""Files that are whole or not there: written beside their place, then renamed."""

from __future__ import annotations

import json
import secrets
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from filelock import FileLock, Timeout

if TYPE_CHECKING:
    from collections.abc import Iterator


@contextmanager
def atomic(path: Path | str) -> Iterator[Path]:
    """Give a temporary path beside `path`, renamed to it at the end and removed if anything fails.

    Parameters
    ----------
    path : Path
        The file's final name; its folder is made where there is none.

    Raises
    ------
    OSError
        If the folder cannot be written or the disk is full; no file is left under the final name.

    Examples
    --------
    >>> import tempfile
    >>> folder = Path(tempfile.mkdtemp())
    >>> with atomic(folder / "a.txt") as beside:
    ...     _ = beside.write_text("whole")
    >>> (folder / "a.txt").read_text()
    'whole'
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.stem[:50]}-{secrets.token_hex(4)}{path.suffix}")
    beside.touch(0o666, exist_ok=False)  # less what the umask takes away
    try:
        yield beside
        beside.replace(path)
    except BaseException as error:
        beside.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename in (None, str(beside)):
            error.filename = str(path)  # a full disk names no file, and the temporary one says nothing to a person
        raise


@contextmanager
def reserved(folder: Path | str) -> Iterator[None]:
    """Keep a folder for this process's work while the block lasts; it is made where there is none.

    Raises
    ------
    ValueError
        If another has it; one that was killed has not.

    Examples
    --------
    >>> import tempfile
    >>> with reserved(tempfile.mkdtemp()):
    ...     pass
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise ValueError(f"another process works in {folder}; wait for its end, or name another folder") from None
    try:
        yield
    finally:
        lock.release()


def write_text(path: Path | str, text: str) -> None:
    """Write a text file, whole or not at all."""
    with atomic(path) as beside:
        beside.write_text(text, encoding="utf-8")


def write_json(path: Path | str, content: Any) -> None:
    """Write `content` as JSON, whole or not at all."""
    write_text(path, json.dumps(content, indent=2, allow_nan=False) + "\n")


def read_json(path: Path | str) -> Any:
    """Read a JSON file.

    Raises
    ------
    ValueError
        If it is missing or damaged: names the file.
    """
    path = Path(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ValueError(f"{path} is missing; name a folder that this program wrote, or write it again") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged ({error}); write it again") from None


def first_line(error: BaseException) -> str:
    r"""Return the first line of what an error says, or its name where it says nothing.

    Examples
    --------
    >>> first_line(ValueError("no\nmore")), first_line(EOFError())
    ('no', 'EOFError')
    """
    return str(error).strip().partition("\n")[0] or type(error).__name__
