"""The originals' test files run against the drop-in modules, and what fails is said."""

from bench import upstream

PASSES = """
from skimage.metrics import structural_similarity

def test_ours():
    assert structural_similarity.__module__ == "fastssim.compat.skimage"
"""
FAILS = "def test_fails():\n    assert 1 == 2\n"
SCRIPT = """
from pathlib import Path
from pytorch_msssim import ssim
assert ssim.__module__ == "fastssim.compat.pytorch_msssim"
print("picture", Path("einstein.png").exists())
"""


def test_files_run_with_our_functions_in_the_originals_place(monkeypatch, tmp_path, capsys):
    files = {"tests/test_passes.py": PASSES, "tests/test_fails.py": FAILS, "tests/script.py": SCRIPT}
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    passes, fails, script = files
    shipped = (
        upstream.Tests("a==1", "skimage", (passes, fails), upstream.PYTEST),
        upstream.Tests("b==1", "pytorch_msssim", (script,), upstream.SCRIPT),
        upstream.Tests("c==1", "kornia", ("tests/never.py",), upstream.PYTEST),
    )
    monkeypatch.setattr(upstream, "SHIPPED", shipped)
    monkeypatch.setattr(upstream, "_fetch", lambda source, _: None if source == "c==1" else tmp_path)
    assert upstream.main() == 2  # the one that fails, the one that is not there
    first, second, third = capsys.readouterr().out.splitlines()
    assert first.startswith("passed skimage test_passes.py: 1 passed")
    assert second.startswith("failed skimage test_fails.py: 1 failed")
    assert third == "passed pytorch_msssim script.py: picture True"


def test_what_cannot_hold_is_left_out_and_what_is_imported_lies_beside(monkeypatch, tmp_path, capsys):
    (tmp_path / "test_some.py").write_text(f"import helper\n{FAILS}\ndef test_ours():\n    helper.check()\n")
    (tmp_path / "helper.py").write_text("def check():\n    pass\n")
    tests = upstream.Tests(
        "a==1", "skimage", ("test_some.py",), upstream.PYTEST, beside=("helper.py",), without="test_fails"
    )
    monkeypatch.setattr(upstream, "SHIPPED", (tests,))
    monkeypatch.setattr(upstream, "_fetch", lambda *_: tmp_path)
    assert upstream.main() == 0
    assert capsys.readouterr().out.startswith("passed skimage test_some.py: 1 passed, 1 deselected")
