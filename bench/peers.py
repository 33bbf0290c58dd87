"""Each library behind the same call: a score of two batches (N, C, H, W) of images.

A score takes the images, the data range L and the window's size: ``score(x, y, data_range, window)``; a library that
takes no batch of tensors first has them brought into its own form (`Peer.prepare`), which is not timed.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from types import ModuleType
from typing import Any

import numpy as np
import torch

from bench import environments
from bench.conventions import MATLAB, PER_CHANNEL, REFLECT, UNIFORM, VALID, Convention, MultiScale, eight_bit

Score = Callable[[Any, Any, float, int], Any]
ODD = tuple(range(3, 34, 2))


@dataclass(frozen=True)
class Peer:
    """One library."""

    name: str
    package: str  # as its distribution is named
    load: Callable[[], Score]  # imports it
    convention: Convention | MultiScale = VALID
    gradient: bool = True  # differentiable by torch
    prepare: Callable[[torch.Tensor, float], Any] = lambda image, _: image
    windows: tuple[int, ...] = ODD  # sizes that it takes
    environment: str | None = None  # of its own, see `bench.environments`
    devices: tuple[str, ...] = ("cpu", "cuda")

    def score(self) -> Score:
        """Return the score; raises ImportError where the library is missing."""
        return self.load()

    @property
    def version(self) -> str:
        """The installed or pinned version, or "not installed"."""
        if self.environment is not None:
            return environments.versions(self.environment)[self.package]
        try:
            return version(self.package)
        except PackageNotFoundError:
            return "not installed"


def _fastssim(*, uniform: bool = False) -> Score:
    import fastssim  # noqa: PLC0415  # what is measured is loaded when it is asked for

    if uniform:
        convention = UNIFORM
        return lambda x, y, data_range, window: fastssim.ssim(x, y, **convention.options(data_range, window))
    gaussian = cache(fastssim.Gaussian)  # a loop makes its window once
    return lambda x, y, data_range, window: fastssim.ssim(x, y, data_range=data_range, window=gaussian(window))


def _frame_analytics(name: str = "ssim") -> Score:
    score = getattr(import_module("frame_analytics"), name)
    return lambda x, y, data_range, window: score(x, y, data_range=data_range, win_size=window).mean()


def _pytorch_msssim(name: str = "ssim") -> Score:
    score = getattr(import_module("pytorch_msssim"), name)
    return lambda x, y, data_range, window: score(x, y, data_range=data_range, win_size=window)


def _compiled() -> Score:
    score = import_module("pytorch_msssim").ssim
    torch.compiler.reset()  # every task and size is compiled for itself: no fallback after too many
    compiled: Any = torch.compile(score, dynamic=False)
    return lambda x, y, data_range, window: compiled(x, y, data_range=data_range, win_size=window)


def _torchmetrics(**options: Any) -> Score:
    score = import_module("torchmetrics.functional.image").structural_similarity_index_measure
    return lambda x, y, data_range, window: score(x, y, data_range=data_range, kernel_size=window, **options)


def _torchmetrics_multiscale() -> Score:
    score = import_module("torchmetrics.functional.image").multiscale_structural_similarity_index_measure
    return lambda x, y, data_range, window: score(x, y, data_range=data_range, kernel_size=window)


def _kornia() -> Score:
    score = import_module("kornia.metrics").ssim
    return lambda x, y, data_range, window: score(x, y, window, float(data_range), padding="valid").mean()


def _piq() -> Score:
    score = _part_of("piq", "ssim").ssim
    return lambda x, y, data_range, window: score(x, y, window, data_range=data_range, downsample=False)


def _piq_multiscale() -> Score:
    score = _part_of("piq", "ms_ssim").multi_scale_ssim
    return lambda x, y, data_range, window: score(x, y, window, data_range=data_range)


def _piqa(name: str = "SSIM") -> Score:
    return of_module(getattr(_part_of("piqa", "ssim"), name))


def of_module(module: Any) -> Score:
    """Call a module of piqa's kind, made once for a window, a number of channels and a range."""

    @lru_cache(maxsize=8)
    def made(window: int, channels: int, data_range: float, dtype: torch.dtype, device: torch.device) -> Any:
        score = module(window_size=window, n_channels=channels, value_range=data_range)
        return score.to(device=device, dtype=dtype)

    return lambda x, y, data_range, window: made(window, x.shape[1], data_range, x.dtype, x.device)(x, y)


def _scikit_image(**options: Any) -> Score:
    score = import_module("skimage.metrics").structural_similarity

    def mean(x: Any, y: Any, data_range: float, window: int) -> float:
        size = {} if "gaussian_weights" in options else {"win_size": window}
        return float(
            np.mean([score(a, b, data_range=data_range, channel_axis=0, **size, **options) for a, b in _pairs(x, y)])
        )

    return mean


def _opencv() -> Score:
    cv2 = import_module("cv2")

    def mean(x: Any, y: Any, _: float, window: int) -> float:  # noqa: ARG001  # 11 pixels, always
        cv2.setNumThreads(torch.get_num_threads())
        return float(np.mean([cv2.quality.QualitySSIM_compute(a, b)[0][: a.shape[2]] for a, b in _pairs(x, y)]))

    return mean


def _fast_ssim() -> Score:
    score = import_module("fast_ssim").ssim
    return lambda x, y, data_range, window: float(
        np.mean([score(a, b, data_range=data_range, win_size=window) for a, b in _pairs(x, y)])
    )


def _blazediff(metric: str = "ssim") -> Score:
    score = import_module("blazediff_ssim").compare_rgba

    def mean(x: Any, y: Any, _: float, window: int) -> float:
        return float(
            np.mean([score(a, b, w, h, metric=metric, window_size=window).score for (a, w, h), (b, *_) in _pairs(x, y)])
        )

    return mean


def _fussim() -> Score:
    score = import_module("fussim").ssim
    return lambda x, y, data_range, window: score(x, y, data_range=data_range, win_size=window)


def _cucim() -> Score:
    cupy, score = import_module("cupy"), import_module("cucim.skimage.metrics").structural_similarity

    def mean(x: Any, y: Any, data_range: float, window: int) -> Any:  # noqa: ARG001  # by sigma
        options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": 0}
        each = [score(cupy.asarray(a), cupy.asarray(b), data_range=data_range, **options) for a, b in _pairs(x, y)]
        return sum(each) / len(each)

    return mean


def _fastssim_multiscale() -> Score:
    import fastssim  # noqa: PLC0415

    score = getattr(fastssim, "ms_ssim", None)
    if score is None:
        raise ImportError(f"fastssim {fastssim.__version__} has no ms_ssim")
    return lambda x, y, data_range, window: score(x, y, data_range=data_range, window=fastssim.Gaussian(window))


def _pairs(x: Any, y: Any) -> Any:
    return zip(x, y, strict=True)


def _part_of(package: str, name: str) -> ModuleType:
    """Import one module of a package without the package's own start, which loads what SSIM does not use."""
    if package not in sys.modules:
        spec = find_spec(package)
        if spec is None or spec.submodule_search_locations is None:
            raise ImportError(f"No module named {package!r}")
        empty = ModuleType(package)
        empty.__path__ = list(spec.submodule_search_locations)
        sys.modules[package] = empty
    return import_module(f"{package}.{name}")


def _planes(image: torch.Tensor, _: float) -> list[Any]:
    """Every plane by itself."""
    return [np.ascontiguousarray(plane) for plane in image.flatten(0, 1).cpu().numpy()]


def _arrays(image: torch.Tensor, _: float) -> list[Any]:
    """Every image, (C, H, W)."""
    return list(image.detach().cpu().numpy())


def _bytes_range(image: torch.Tensor, data_range: float) -> list[Any]:
    """Every image, (H, W, C), in 0 .. 255."""
    scaled = (image * (255 / data_range)).permute(0, 2, 3, 1).cpu().numpy()
    return [np.ascontiguousarray(one) for one in scaled]


def _rgba(image: torch.Tensor, data_range: float) -> list[Any]:
    """Every plane as a grey RGBA image of 8 bits, with its width and height."""
    planes = eight_bit(image.cpu().numpy(), data_range).reshape(-1, *image.shape[2:])
    return [
        (np.dstack([grey, grey, grey, np.full_like(grey, 255)]).tobytes(), grey.shape[1], grey.shape[0])
        for grey in planes
    ]


_array_peer = partial(Peer, gradient=False, devices=("cpu",))
_GAUSSIAN = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}

#  mean SSIM, Gaussian window of 11 pixels, sigma 1.5
SSIM = (
    Peer("fastssim", "fastssim", _fastssim),
    Peer("frame-analytics", "frame-analytics", _frame_analytics, windows=(3, 5, 7, 9, 11)),
    Peer("pytorch-msssim", "pytorch-msssim", _pytorch_msssim),
    Peer("pytorch-msssim compiled", "pytorch-msssim", _compiled),
    Peer("torchmetrics", "torchmetrics", _torchmetrics, REFLECT, windows=(11,)),
    Peer("kornia", "kornia", _kornia),
    Peer("piq", "piq", _piq, environment="piq"),
    Peer("piqa", "piqa", _piqa, environment="piqa"),
    _array_peer("scikit-image", "scikit-image", partial(_scikit_image, **_GAUSSIAN), prepare=_arrays, windows=(11,)),
    _array_peer(
        "opencv", "opencv-contrib-python-headless", _opencv, REFLECT, prepare=_bytes_range, windows=(11,),
        environment="opencv",
    ),
    _array_peer("blazediff-ssim", "blazediff-ssim", _blazediff, MATLAB, prepare=_rgba),
    Peer("fussim", "fussim", _fussim, windows=(11,), devices=("cuda",)),
    Peer("cucim", "cucim-cu12", _cucim, gradient=False, windows=(11,), devices=("cuda",)),
)  # fmt: skip
#  mean SSIM, uniform window of 7 pixels, variances over n - 1: the default of scikit-image
UNIFORM_SSIM = (
    _array_peer("fastssim", "fastssim", partial(_fastssim, uniform=True), UNIFORM, devices=("cpu", "cuda")),
    _array_peer("scikit-image", "scikit-image", _scikit_image, UNIFORM, prepare=_arrays),
    _array_peer("fast-ssim", "Fast-SSIM", _fast_ssim, UNIFORM, prepare=_planes),
)
MS_SSIM = (
    Peer("fastssim", "fastssim", _fastssim_multiscale, PER_CHANNEL),
    Peer("frame-analytics", "frame-analytics", partial(_frame_analytics, "ms_ssim"), PER_CHANNEL),
    Peer("pytorch-msssim", "pytorch-msssim", partial(_pytorch_msssim, "ms_ssim"), PER_CHANNEL),
    Peer("torchmetrics", "torchmetrics", _torchmetrics_multiscale, MultiScale("border mirrored", reflect=True)),
    Peer("piq", "piq", _piq_multiscale, PER_CHANNEL, environment="piq"),
    Peer("piqa", "piqa", partial(_piqa, "MS_SSIM"), PER_CHANNEL, environment="piqa"),
    _array_peer("blazediff-ssim", "blazediff-ssim", partial(_blazediff, "ms-ssim"), PER_CHANNEL, prepare=_rgba),
)
