"""Right results wherever the package runs: without a compiler, a cache, a home, or the widest vectors."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import fastssim
from fastssim.cpu import launch, plain
from fastssim.plan import Plan

PROGRAM = """
import warnings
warnings.simplefilter("error")
import torch, fastssim
generator = torch.Generator().manual_seed(0)
x, y = torch.rand(2, 1, 2, 30, 41, generator=generator)
a = x.clone().requires_grad_()
value = fastssim.ssim(a, y, window=fastssim.Gaussian((5, 3), 1.5), padding="reflect", reduction="image")
value.sum().backward()
print(value.item(), a.grad.norm().item())
"""


TILES = """
import numpy as np, torch
from fastssim.tiles import TileGrid, blend, extract, sliding_window
grid = TileGrid((40, 53), 16, 7)
image = torch.rand(2, 40, 53, generator=torch.Generator().manual_seed(0)).requires_grad_()
tiles = extract(image, grid)
(blend(tiles * tiles, grid, window="gaussian") ** 2).sum().backward()
mean, spread = sliding_window(lambda t: t * t, image.detach().numpy(), grid, window="hann", reduction="mean_std")
print(tiles.square().mean().item(), image.grad.norm().item(), np.linalg.norm(mean), np.linalg.norm(spread))
"""


def run(program=PROGRAM, **variables):
    """Run a program in a process of its own and return the numbers it prints."""
    environment = {**os.environ, **variables}
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=False, env=environment, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return [float(number) for number in done.stdout.split()]


@pytest.fixture(scope="module")
def here():
    return run()


@pytest.mark.parametrize(
    "variables",
    [{"NUMBA_DISABLE_JIT": "1"}, {"NUMBA_CPU_NAME": "haswell"}, {"OMP_NUM_THREADS": "1"}],
    ids=lambda variables: next(iter(variables)),
)
def test_results_are_right_with(here, variables):
    assert run(**variables) == pytest.approx(here, rel=2e-5)


def test_tiles_need_no_compiler():
    assert run(TILES, NUMBA_DISABLE_JIT="1") == pytest.approx(run(TILES), rel=1e-6)


def test_results_are_right_where_nothing_can_be_written(here, tmp_path):
    package = Path(fastssim.__file__).parent
    shutil.copytree(package, tmp_path / "fastssim", ignore=shutil.ignore_patterns("__pycache__"))
    for folder in (tmp_path / "fastssim", tmp_path / "fastssim" / "cpu"):
        (folder / "__pycache__").write_text("a file where the cache's folder would be")
    nowhere = tmp_path / "nowhere"
    nowhere.write_text("a file where a home would be")
    places = {**dict.fromkeys(("HOME", "XDG_CACHE_HOME"), str(nowhere / "home")), "NUMBA_CACHE_DIR": ""}
    found = run(f"import os; os.chdir({str(tmp_path)!r})\n" + PROGRAM, PYTHONPATH=str(tmp_path), **places)
    assert found == pytest.approx(here, rel=1e-6)


@pytest.mark.parametrize("masked", [False, True])
def test_what_stands_for_the_kernels_gives_their_numbers(masked):
    generator = torch.Generator().manual_seed(0)
    x, y = torch.rand(2, 1, 2, 30, 41, generator=generator)
    mask = (torch.rand(1, 2, 30, 41, generator=generator) > 0.3) if masked else None
    window = fastssim.Gaussian((5, 3), (1.2, 0.8))
    plan = Plan((1, 2, 30, 41), "float32", window.weights_y, window.weights_x, 1e-4, 9e-4, "reflect", 1.0, masked)
    l1 = None if masked else 0.1
    results = []
    for backend in (launch, plain):
        grad_x, grad_y, by_map, ssim_map = torch.empty(4, 1, 2, 30, 41)
        backend.ssim_map(plan, x, y, mask, ssim_map)
        backend.map_gradient(plan, x, y, mask, ssim_map, by_map, None)
        sums = backend.value_and_gradient(plan, x, y, mask, 0.01, grad_x, grad_y, l1=l1)
        sums = [*sums, *backend.value(plan, x, y, mask, distance=l1 is not None)]
        results.append([grad_x, grad_y, by_map, ssim_map, *map(torch.from_numpy, sums)])
    for kernel, reference in zip(*results, strict=True):
        torch.testing.assert_close(kernel, reference, rtol=2e-5, atol=2e-5 * reference.abs().max().item())


def test_what_stands_for_the_kernels_computes_on_the_cpu_whatever_the_default_device():
    x, y, gradient = torch.rand(3, 1, 1, 8, 9)
    plan = Plan(tuple(x.shape), "float32", (0.25, 0.5, 0.25), (0.25, 0.5, 0.25), 1e-4, 9e-4)
    plain.value_and_gradient(plan, x, y, None, 0.01, gradient, None)
    expected = gradient.clone()
    with torch.device("meta"):
        plain.value_and_gradient(plan, x, y, None, 0.01, gradient, None)
    assert torch.equal(gradient, expected)


class Scores(torch.utils.data.Dataset):
    """SSIM computed in the workers of a DataLoader."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        x, y = torch.rand(2, 1, 1, 60, 70, generator=torch.Generator().manual_seed(index))
        return fastssim.ssim(x, y, window=fastssim.Gaussian((5, 3), 1.5)).item()


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers_of_a_data_loader_compute_after_their_parent_has(method):
    if method not in torch.multiprocessing.get_all_start_methods():
        pytest.skip(f"this system does not {method}")
    if method == "spawn":  # the worker imports this file by its name
        program = (
            f"import sys; sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
            "import torch\n"
            "from test_surroundings import Scores\n"
            "if __name__ == '__main__':\n"
            "    scores = Scores()\n"
            "    print(*(scores[i] for i in range(4)))\n"
            "    loader = torch.utils.data.DataLoader(scores, num_workers=2, multiprocessing_context='spawn')\n"
            "    print(*(score.item() for score in loader))\n"
        )
        numbers = run(program)
        expected, found = numbers[:4], numbers[4:]
    else:
        scores = Scores()
        expected = [scores[i] for i in range(4)]
        loader = torch.utils.data.DataLoader(scores, num_workers=2, multiprocessing_context=method)
        found = [score.item() for score in loader]
    assert found == expected
