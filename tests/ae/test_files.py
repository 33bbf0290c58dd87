from __future__ import annotations

import errno
import os

import pytest

from ae.files import atomic, read_json, write_json, write_text


def test_a_file_is_whole_or_not_there(tmp_path):
    path = tmp_path / "deep" / "a.txt"
    with pytest.raises(OSError, match="No space"), atomic(path) as beside:  # noqa: PT012  # the failure is amid the block
        beside.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")
    assert list(path.parent.iterdir()) == []
    write_text(path, "whole")
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["a.txt"]  # noqa: PTH208


def test_a_failed_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"a": 1})
    with pytest.raises(ValueError, match="Out of range float"):
        write_json(path, {"a": float("nan")})
    assert read_json(path) == {"a": 1}


def test_missing_and_damaged_json_name_the_file(tmp_path):
    with pytest.raises(ValueError, match=r"no\.json is missing"):
        read_json(tmp_path / "no.json")
    (tmp_path / "bad.json").write_text('{"a": ')
    with pytest.raises(ValueError, match=r"bad\.json is damaged"):
        read_json(tmp_path / "bad.json")


@pytest.mark.skipif(os.name == "nt", reason="Windows has no umask")
@pytest.mark.parametrize(("umask", "mode"), [(0o077, 0o600), (0o022, 0o644), (0o002, 0o664)])
def test_a_file_may_be_read_by_whom_the_umask_allows(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        write_json(tmp_path / "a.json", 1)
    finally:
        os.umask(before)
    assert (tmp_path / "a.json").stat().st_mode & 0o777 == mode


def test_the_longest_name_can_be_written(tmp_path):
    path = tmp_path / f"{'n' * 250}.json"
    write_json(path, 1)
    assert read_json(path) == 1
