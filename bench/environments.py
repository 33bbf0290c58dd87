"""Environments of their own for peers that bring or pin what ours must not have.

Each is a folder beside this interpreter's packages, with the peer's packages alone: everything else, torch included,
is found in ours, and ``pip --no-deps`` keeps it so. `python -m bench peers --install` makes them.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import venv
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

ENVIRONMENTS: dict[str, tuple[str, ...]] = {
    "anomalib": ("anomalib==2.7.0",),  # brings thirty packages, which its tiler does not use
    "monai": ("monai==1.6.1",),
    "opencv": ("opencv-contrib-python-headless==5.0.0.93",),  # 70 MB, and shares its files with other OpenCVs
    "patchify": ("patchify==0.2.3",),  # asks for NumPy before 2, which it does not need
    "piq": ("piq==0.8.0",),  # asks for torchvision, which its SSIM does not use
    "piqa": ("piqa==1.3.2",),  # likewise
    "pytorch-toolbelt": ("pytorch-toolbelt==0.8.0", "opencv-python-headless==5.0.0.93"),  # for its tiles alone
    "tiler": ("tiler==0.6.0", "tqdm==4.70.1"),  # would bring another NumPy
}
ROOT = Path(sys.prefix) / "peers"


def python(name: str) -> Path:
    """Return the interpreter of an environment.

    Raises
    ------
    ImportError
        If it has not been made, or with other versions.
    """
    if _stamp(name).exists() and _stamp(name).read_text(encoding="utf-8").split() == list(ENVIRONMENTS[name]):
        return _interpreter(name)
    raise ImportError(
        f"{' '.join(ENVIRONMENTS[name])} wants an environment of its own: python -m bench peers --install"
    )


def versions(name: str) -> Mapping[str, str]:
    """Return the pinned versions of an environment's packages.

    Examples
    --------
    >>> versions("piq")
    {'piq': '0.8.0'}
    """
    return dict(requirement.split("==") for requirement in ENVIRONMENTS[name])


def install(names: Iterable[str]) -> dict[str, str]:
    """Make the environments; return what pip said for those that failed."""
    failed = {}
    for name in names:
        folder = ROOT / name
        venv.create(folder, clear=True, with_pip=False)
        packages = Path(sysconfig.get_path("purelib", vars={"base": str(folder), "platbase": str(folder)}))
        (packages / "ours.pth").write_text("\n".join(_ours()) + "\n", encoding="utf-8")
        command = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "install", "--no-deps"]
        made = subprocess.run(  # noqa: S603  # our own words
            [*command, "--target", str(packages), *ENVIRONMENTS[name]], capture_output=True, text=True, check=False
        )
        if made.returncode:
            failed[name] = (made.stderr.strip().splitlines() or ["pip failed"])[-1]
        else:
            _stamp(name).write_text("\n".join(ENVIRONMENTS[name]), encoding="utf-8")
    return failed


def _ours() -> list[str]:
    """Folders of this interpreter's packages."""
    return [path for path in sys.path if Path(path).name in {"site-packages", "dist-packages"}]


def _interpreter(name: str) -> Path:
    return ROOT / name / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")


def _stamp(name: str) -> Path:
    return ROOT / name / "packages.txt"
