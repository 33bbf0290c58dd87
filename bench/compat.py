"""Every drop-in function against the one that it replaces, with the same arguments, float32: images, and volumes."""

from __future__ import annotations

from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from bench import roofline
from bench.cases import Case
from bench.conventions import PER_CHANNEL, REFLECT, UNIFORM, VALID, Convention, MultiScale
from bench.measure import Kind, measure
from bench.peers import Peer, _arrays, _pairs, _part_of, of_module
from bench.ssim import KINDS as SSIM_KINDS

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from bench.peers import Score

CASE = Case((4, 3, 512, 512))
VOLUME = Case((1, 1, 48, 160, 160))
OURS = "fastssim.compat."


def _named(module: str, name: str) -> Score:
    score = getattr(import_module(module), name)
    return lambda x, y, data_range, window: score(x, y, data_range=data_range, win_size=window)


def _piqa(module: str, name: str) -> Score:
    return of_module(getattr(_part_of("piqa", module) if module == "ssim" else import_module(module), name))


def _kornia(module: str) -> Score:
    loss = import_module(module).losses.ssim_loss
    return lambda x, y, data_range, window: 1 - 2 * loss(x, y, window, float(data_range))


def _kornia_volumes(module: str) -> Score:
    score = import_module(module).metrics.ssim3d
    return lambda x, y, data_range, window: score(x, y, window, float(data_range), padding="valid").mean()


def _torchmetrics(module: str, name: str) -> Score:
    score = getattr(import_module(module), name)
    return lambda x, y, data_range, window: score(x, y, data_range=data_range, kernel_size=window)


def _piq(module: str, name: str, **options: Any) -> Score:
    found = _part_of("piq", module) if module in {"ssim", "ms_ssim"} else import_module(module)
    score = getattr(found, name)
    return lambda x, y, data_range, window: score(x, y, window, data_range=data_range, **options)


def _monai(module: str) -> Score:
    loss = import_module(module).SSIMLoss
    return lambda x, y, data_range, window: 1 - loss(x.ndim - 2, data_range=data_range, win_size=window)(x, y)


def _skimage(module: str, **options: Any) -> Score:
    score = import_module(module).structural_similarity

    def mean(x: Any, y: Any, data_range: float, window: int) -> float:
        size = {} if "gaussian_weights" in options else {"win_size": window}
        found = [score(a, b, data_range=data_range, channel_axis=0, **size, **options) for a, b in _pairs(x, y)]
        return float(np.mean([one[0] if isinstance(one, tuple) else one for one in found]))

    return mean


def _pair(
    package: str,
    load: Callable[..., Score],
    ours: str,
    theirs: str,
    convention: Convention | MultiScale,
    **options: Any,
) -> tuple[Peer, Peer]:
    """Return our function and the original, loaded in one way from two modules."""
    first = {name: value for name, value in options.items() if name != "environment"}
    return (
        Peer("fastssim", "fastssim", partial(load, OURS + ours), convention, **first),
        Peer(package, package, partial(load, theirs), convention, **options),
    )


_ARRAYS: dict[str, Any] = {"gradient": False, "prepare": _arrays, "devices": ("cpu",)}
_SCORES = ("structural_similarity_index_measure", "multiscale_structural_similarity_index_measure")
_WANG: dict[str, Any] = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
MSSSIM = _pair("pytorch-msssim", partial(_named, name="ssim"), "pytorch_msssim", "pytorch_msssim", VALID)
MSSSIM_SCALES = _pair(
    "pytorch-msssim", partial(_named, name="ms_ssim"), "pytorch_msssim", "pytorch_msssim", PER_CHANNEL
)
FRAME = _pair("frame-analytics", partial(_named, name="ssim"), "frame_analytics", "frame_analytics", VALID)
FRAME_SCALES = _pair(
    "frame-analytics", partial(_named, name="ms_ssim"), "frame_analytics", "frame_analytics", PER_CHANNEL
)
KORNIA = _pair("kornia", _kornia, "kornia", "kornia", REFLECT)
KORNIA_VOLUMES = _pair("kornia", _kornia_volumes, "kornia", "kornia", VALID)
TORCHMETRICS = _pair(
    "torchmetrics", partial(_torchmetrics, name=_SCORES[0]), "torchmetrics", "torchmetrics.functional.image", REFLECT
)
TORCHMETRICS_SCALES = _pair(
    "torchmetrics", partial(_torchmetrics, name=_SCORES[1]), "torchmetrics", "torchmetrics.functional.image",
    MultiScale("border mirrored", reflect=True),
)  # fmt: skip
PIQ = _pair("piq", partial(_piq, name="ssim", downsample=False), "piq", "ssim", VALID, environment="piq")
PIQ_SCALES = _pair("piq", partial(_piq, name="multi_scale_ssim"), "piq", "ms_ssim", PER_CHANNEL, environment="piq")
PIQA = _pair("piqa", partial(_piqa, name="SSIM"), "piqa", "ssim", VALID, environment="piqa")
PIQA_SCALES = _pair("piqa", partial(_piqa, name="MS_SSIM"), "piqa", "ssim", PER_CHANNEL, environment="piqa")
MONAI = _pair("monai", _monai, "monai", "monai.losses", VALID, environment="monai")
SKIMAGE = _pair("scikit-image", _skimage, "skimage", "skimage.metrics", UNIFORM, **_ARRAYS)
SKIMAGE_WANG = _pair("scikit-image", partial(_skimage, **_WANG), "skimage", "skimage.metrics", VALID, **_ARRAYS)
SKIMAGE_GRADIENT = _pair(
    "scikit-image", partial(_skimage, gradient=True, **_WANG), "skimage", "skimage.metrics", VALID, **_ARRAYS
)
_BOTH = {  # function: table, scales' share of the work
    "pytorch_msssim.ssim": ("MSSSIM", 1.0),
    "pytorch_msssim.ms_ssim": ("MSSSIM_SCALES", 4 / 3),
    "frame_analytics.ssim": ("FRAME", 1.0),
    "frame_analytics.ms_ssim": ("FRAME_SCALES", 4 / 3),
    "kornia.losses.ssim_loss": ("KORNIA", 1.0),
    "torchmetrics' SSIM": ("TORCHMETRICS", 1.0),
    "torchmetrics' multi-scale SSIM": ("TORCHMETRICS_SCALES", 4 / 3),
    "piq.ssim, downsample=False": ("PIQ", 1.0),
    "piq.multi_scale_ssim": ("PIQ_SCALES", 4 / 3),
    "piqa.SSIM": ("PIQA", 1.0),
    "piqa.MS_SSIM": ("PIQA_SCALES", 4 / 3),
    "monai.losses.SSIMLoss": ("MONAI", 1.0),
}
TABLES = tuple(
    f"bench.compat:{name}"
    for name in (
        *(table for table, _ in _BOTH.values()),
        "SKIMAGE",
        "SKIMAGE_WANG",
        "SKIMAGE_GRADIENT",
        "KORNIA_VOLUMES",
    )
)
KINDS = (
    *(
        Kind(f"{function}, {kind.name}", kind.task, f"bench.compat:{table}", fma=kind.fma * share, moved=kind.moved)
        for function, (table, share) in _BOTH.items()
        for kind in SSIM_KINDS[:2]
    ),
    Kind("structural_similarity", "bench.tasks:forward", "bench.compat:SKIMAGE", window=7, fma=32, moved=8),
    Kind("structural_similarity, Gaussian", "bench.tasks:forward", "bench.compat:SKIMAGE_WANG", fma=88, moved=8),
    Kind(
        "structural_similarity, Gaussian, gradient=True",
        "bench.tasks:forward",
        "bench.compat:SKIMAGE_GRADIENT",
        fma=154,
        moved=12,
    ),
)
#  Three passes instead of two.
VOLUME_KINDS = tuple(
    Kind(
        f"{function} of volumes, {kind.name}", kind.task, f"bench.compat:{table}", fma=1.5 * kind.fma, moved=kind.moved
    )
    for function, table in {
        "pytorch_msssim.ssim": "MSSSIM",
        "kornia.metrics.ssim3d": "KORNIA_VOLUMES",
        "monai.losses.SSIMLoss": "MONAI",
    }.items()
    for kind in SSIM_KINDS[:2]
)


def run(
    peers: Collection[str],
    *,
    quick: bool,
    rounds: int,
    announce: Callable[[str], object] = lambda _: None,
) -> dict[str, Any]:
    """Time every drop-in function and its original, as `bench.ssim.run`.

    ``quick``: without many scales, volumes and the values of what also has a gradient.
    """
    limits = roofline.measure("cpu")
    kinds = [kind for kind in KINDS if not (quick and ("SCALES" in kind.table or kind.name.endswith(", forward")))]
    rows = measure(kinds, [CASE], peers, limits, rounds=rounds, announce=announce)
    if not quick:
        rows += measure(VOLUME_KINDS, [VOLUME], peers, limits, rounds=rounds, announce=announce)
    return {"roofline": vars(limits), "rows": rows}
