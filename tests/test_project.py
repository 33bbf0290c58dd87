"""What the project's files promise about one another."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def text(name):
    return (ROOT / name).read_text(encoding="utf-8")


def test_pre_commit_has_the_versions_of_ci():
    hooks = dict(re.findall(r"repo: https://github.com/\S+/(\S+)\n\s+rev: v(\S+)", text(".pre-commit-config.yaml")))
    pins = dict(re.findall(r'"(ruff|mypy)==([\d.]+)"', text("pyproject.toml")))
    assert pins
    assert hooks == {"ruff-pre-commit": pins["ruff"], "mirrors-mypy": pins["mypy"]}


def test_ci_runs_the_test_command_of_the_readme():
    commands = re.search(r"```bash\n(.*?)```", text("README.md"), re.DOTALL).group(1)
    test = next(line.split("#")[0].strip() for line in commands.splitlines() if " test" in line)
    assert test == "python3 dev.py test"
    assert test in text(".ci/run").splitlines()


def test_links_and_pictures_of_the_documentation_exist():
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")]
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+)", page.read_text(encoding="utf-8")):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name} names {target}"


def test_core_needs_only_numpy_numba_and_torch():
    line = re.search(r"^dependencies = \[(.*)\]$", text("pyproject.toml"), re.MULTILINE).group(1)
    assert sorted(re.findall(r'"(\w+)', line)) == ["numba", "numpy", "torch"]


def test_every_script_reads_the_same_licence():
    assert 'license = "Apache-2.0"' in text("pyproject.toml")
    assert "Apache License" in text("LICENSE")


def test_every_extra_is_in_the_readme_and_none_that_is_not_there():
    table = re.search(r"\[project\.optional-dependencies\]\n(.*?)\n\[", text("pyproject.toml"), re.DOTALL).group(1)
    extras = set(re.findall(r"^(\w+) = \[", table, re.MULTILINE))
    line = re.search(r"Extras: (.*?)\.", text("README.md")).group(1)
    named = set(re.findall(r"`(\w+)`", line))
    assert named <= extras
    assert {"cuda12", "cuda13"} <= extras - named  # of the section on GPUs
    assert all(f"{extra}`" in text("README.md") or f"[{extra}]" in text("README.md") for extra in extras)
