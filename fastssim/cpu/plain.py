"""What `fastssim.cpu.launch` and `scale_launch` offer, by the slow reference: for ``NUMBA_DISABLE_JIT=1``."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional as F

from fastssim import reference
from fastssim.interop import LARGEST, readable
from fastssim.plan import Sums
from fastssim.scales import sum_of_scales
from fastssim.window import Taps

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from fastssim.plan import Plan


def value(plan: Plan, x: Tensor, y: Tensor, mask: Tensor | None, *, distance: bool = False) -> Sums:
    """As `fastssim.cpu.launch.value`."""
    a, b, weights = _arrays(plan, x, y, mask)
    ssim = reference.ssim(a, b, mask=weights, **_options(plan))
    counted = np.zeros(ssim.shape)
    if weights is not None:
        counted = reference.counted(a.shape, weights, _options(plan)["window"], plan.padding).astype(np.float64)
        ssim *= counted
    apart = np.abs(a - b) if distance else np.zeros(a.shape)
    return Sums(*(planes.sum(tuple(range(2, planes.ndim))) for planes in (ssim, counted, apart)))


def ssim_map(plan: Plan, x: Tensor, y: Tensor, mask: Tensor | None, out: Tensor) -> None:
    """As `fastssim.cpu.launch.ssim_map`."""
    a, b, weights = _arrays(plan, x, y, mask)
    out.copy_(torch.from_numpy(reference.ssim(a, b, mask=weights, **_options(plan))))


def value_and_gradient(
    plan: Plan,
    x: Tensor,
    y: Tensor,
    mask: Tensor | None,
    scale: float,
    grad_x: Tensor,
    grad_y: Tensor | None,
    *,
    l1: float | None = None,
) -> Sums:
    """As `fastssim.cpu.launch.value_and_gradient`."""
    map_gradient(plan, x, y, mask, torch.from_numpy(np.full(plan.map_shape, scale)), grad_x, grad_y)
    if l1 is not None:
        a, b, _ = _arrays(plan, x, y, mask)
        sign = torch.from_numpy(l1 * np.sign(a - b))
        grad_x.add_(sign)
        if grad_y is not None:
            grad_y.sub_(sign)
    return value(plan, x, y, mask, distance=l1 is not None)


def map_gradient(
    plan: Plan,
    x: Tensor,
    y: Tensor,
    mask: Tensor | None,
    upstream: Tensor,
    grad_x: Tensor,
    grad_y: Tensor | None,
) -> None:
    """As `fastssim.cpu.launch.map_gradient`."""
    a, b, weights = _arrays(plan, x, y, mask)
    by_window = upstream.to(torch.float64).numpy()
    for out, one, other in ((grad_x, a, b), (grad_y, b, a)):
        if out is not None:
            gradient = reference.ssim_gradient(one, other, by_window, mask=weights, **_options(plan))
            out.copy_(torch.from_numpy(gradient))


def halve(image: Tensor, out: Tensor, *, fractions: bool) -> None:
    """As `fastssim.cpu.scale_launch.halve`."""
    out.copy_(F.avg_pool2d(readable(image, fractions=fractions).to(out.dtype), 2))


def deliver(gradient: Tensor, coarser: Tensor, upstream: Tensor) -> None:
    """As `fastssim.cpu.scale_launch.deliver`."""
    gradient.copy_(sum_of_scales(gradient, coarser, upstream))


def _arrays(plan: Plan, x: Tensor, y: Tensor, mask: Tensor | None) -> tuple[Any, Any, NDArray[Any] | None]:
    """Convert images and mask to float64."""
    images = [
        image.detach().to(torch.float64).numpy() / (LARGEST.get(image.dtype, 1) if plan.fractions else 1)
        for image in (x, y)
    ]
    return images[0], images[1], None if mask is None else mask.to(torch.float64).numpy()


def _options(plan: Plan) -> dict[str, Any]:
    """Write a plan as options of the reference."""
    return {
        "window": Taps(plan.taps),
        "k1": math.sqrt(plan.c1),
        "k2": math.sqrt(plan.c2),
        "padding": plan.padding,
        "unbiased": plan.unbiased != 1,
        "dims": len(plan.taps),
    }
