"""`fastssim.compat.torchmetrics` against torchmetrics."""

from __future__ import annotations

import pickle

import pytest
import torch

from fastssim.compat import torchmetrics as ours

theirs = pytest.importorskip("torchmetrics.functional.image")
metrics = pytest.importorskip("torchmetrics.image")
NAME, SEVERAL = "structural_similarity_index_measure", "multiscale_structural_similarity_index_measure"
SHORT = {"betas": (0.4, 0.6), "sigma": 0.8, "kernel_size": 5}

OPTIONS = [
    {},  # the range of the images, with its gradient
    {"data_range": 1.0},
    {"data_range": (0.2, 0.8)},
    {"data_range": 1.0, "reduction": "sum"},
    {"data_range": 1.0, "reduction": "none"},
    {"reduction": None, "k1": 0.02, "k2": 0.05},
    {"data_range": 1.0, "sigma": (0.5, 1.2)},
    {"data_range": 1.0, "gaussian_kernel": False, "kernel_size": 7},
    {"data_range": 1.0, "gaussian_kernel": False, "kernel_size": (3, 9), "reduction": "none"},
    {"return_full_image": True},
    {"data_range": 1.0, "return_contrast_sensitivity": True, "reduction": "none"},
    {"return_contrast_sensitivity": True, "sigma": [0.8, 1.5]},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_functional(images, parity, options):
    x, y = images((3, 2, 33, 40))
    y = 0.9 * y  # of another range
    parity(lambda a, b: getattr(ours, NAME)(a, b, **options), lambda a, b: getattr(theirs, NAME)(a, b, **options), x, y)


@pytest.mark.parametrize(
    "options",
    [
        SHORT,
        {**SHORT, "data_range": 1.0, "reduction": "none", "normalize": "simple"},
        {**SHORT, "data_range": (0.1, 0.9), "reduction": "sum", "normalize": None},
        {**SHORT, "gaussian_kernel": False, "kernel_size": (5, 3), "k1": 0.03, "reduction": None},
    ],
    ids=str,
)
def test_several_scales(images, parity, options):
    x, y = images((2, 2, 51, 45))
    parity(
        lambda a, b: getattr(ours, SEVERAL)(a, b, **options),
        lambda a, b: getattr(theirs, SEVERAL)(a, b, **options),
        x,
        y,
    )


def test_five_scales(images, parity):
    x, y = images((1, 1, 177, 180))
    parity(
        lambda a, b: getattr(ours, SEVERAL)(a, b, data_range=1.0),
        lambda a, b: getattr(theirs, SEVERAL)(a, b, data_range=1.0),
        x,
        y,
    )


def test_anisotropic_values_that_torchmetrics_publishes():
    generator = torch.Generator().manual_seed(42)
    x, y = (torch.randint(0, 2, (1, 1, 7, 7), generator=generator).float() for _ in range(2))
    for options in ({"sigma": (0.25, 0.5)}, {"gaussian_kernel": False, "kernel_size": (3, 5)}):
        found, expected = (getattr(module, NAME)(x, y, data_range=1.0, **options) for module in (ours, theirs))
        assert abs(found - expected) <= 1e-5  # the original is in float32 here


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_gives_the_value_of_what_it_holds(images, dtype):
    x, y = (image.to(dtype) for image in images((1, 1, 33, 40)))
    found = getattr(ours, NAME)(x, y.float())
    expected = getattr(theirs, NAME)(x.double(), y.double())
    assert found.dtype == dtype
    assert abs(found - expected) <= torch.finfo(dtype).eps


def test_black_images_score_one():
    x = torch.zeros(1, 1, 20, 20, dtype=torch.float16)
    assert getattr(ours, NAME)(x, x, data_range=1.0) == 1


@pytest.mark.parametrize("name", [NAME, SEVERAL])
def test_errors(same_error, name):
    one, other = getattr(ours, name), getattr(theirs, name)
    x = torch.rand(1, 1, 180, 180)
    same_error(RuntimeError, one, other, x, x[:, :, :90])
    same_error(ValueError, one, other, x[0], x[0])
    for options in (
        {"kernel_size": 10}, {"kernel_size": (11, -3)}, {"kernel_size": (11, 11, 11)}, {"sigma": 0.0},
        {"sigma": (1.5, -1.0)}, {"sigma": (1.5, 1.5, 1.5)}, {"reduction": "median"},
    ):  # fmt: skip
        same_error(ValueError, one, other, x, x, **options)


def test_too_few_sigmas_are_named_beside_what_torchmetrics_says():
    x = torch.rand(1, 1, 16, 16)
    with pytest.raises(ValueError, match=r"^`kernel_size` has dimension 2, .* which is: 4; `sigma` has dimension 1$"):
        getattr(ours, NAME)(x, x, sigma=[1.5])


def test_errors_of_one_function(same_error):
    x = torch.rand(1, 1, 40, 40)
    both = {"return_full_image": True, "return_contrast_sensitivity": True}
    same_error(ValueError, getattr(ours, NAME), getattr(theirs, NAME), x, x, **both)
    for options in ({}, {"betas": [0.5, 0.5]}, {"betas": (1, 2)}, {"normalize": "abs"}, {"betas": (0.1,) * 6}):
        same_error(ValueError, getattr(ours, SEVERAL), getattr(theirs, SEVERAL), x, x, **options)


FIVE = {"sigma": 0.5, "kernel_size": 5}  # the Gaussian has five taps: beyond, the original mirrors too much


@pytest.mark.parametrize(
    "options",
    [
        {**FIVE, "data_range": 1.0},
        {"gaussian_kernel": False, "kernel_size": (3, 5, 7), "reduction": "none"},
        {**FIVE, "return_full_image": True},
        {**FIVE, "data_range": (0.2, 0.8), "return_contrast_sensitivity": True, "reduction": "none"},
    ],
    ids=str,
)
def test_volumes(images, parity, options):
    x, y = images((2, 2, 9, 11, 12))
    y = 0.9 * y  # of another range
    parity(lambda a, b: getattr(ours, NAME)(a, b, **options), lambda a, b: getattr(theirs, NAME)(a, b, **options), x, y)


def test_several_scales_of_volumes(images, parity):
    x, y = images((2, 1, 13, 24, 27))
    options = {**FIVE, "betas": (0.4, 0.6), "data_range": 1.0}
    parity(
        lambda a, b: getattr(ours, SEVERAL)(a, b, **options),
        lambda a, b: getattr(theirs, SEVERAL)(a, b, **options),
        x,
        y,
    )


def test_a_gaussian_over_volumes_needs_no_kernel_size(images):
    """The original mirrors the last axis by half of kernel_size, which shifts what its windows see."""
    x, y = images((1, 1, 9, 11, 12))
    assert getattr(ours, NAME)(x, y, sigma=0.5) == getattr(ours, NAME)(x, y, **FIVE)


def test_metrics_of_volumes(images):
    x, y = images((2, 1, 13, 24, 27))
    for name, function, more in zip(ours.METRICS, ours.FUNCTIONS, ({}, {"betas": (0.4, 0.6)}), strict=True):
        options = {**FIVE, **more, "data_range": 1.0}
        metric = getattr(ours, name)(**options)
        metric.update(x, y)
        assert metric.compute() == getattr(ours, function)(x, y, **options)


def test_errors_of_volumes(same_error):
    x = torch.rand(1, 1, 11, 12, 13)
    for options in ({"kernel_size": (5, 5)}, {"sigma": (1.5, 1.5)}, {"kernel_size": (5, 5, 4)}):
        same_error(ValueError, getattr(ours, NAME), getattr(theirs, NAME), x, x, **options)
    same_error(ValueError, getattr(ours, SEVERAL), getattr(theirs, SEVERAL), x, x)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("StructuralSimilarityIndexMeasure", {"data_range": 1.0}),
        ("StructuralSimilarityIndexMeasure", {"reduction": "none"}),
        ("StructuralSimilarityIndexMeasure", {"data_range": 1.0, "reduction": "sum", "return_full_image": True}),
        ("StructuralSimilarityIndexMeasure", {"data_range": 1.0, "return_contrast_sensitivity": True}),
        ("MultiScaleStructuralSimilarityIndexMeasure", {**SHORT, "data_range": 1.0}),
        ("MultiScaleStructuralSimilarityIndexMeasure", {**SHORT, "reduction": None}),
    ],
)
def test_metrics_over_batches_and_processes(images, name, options):
    """Two updates; then the states of two processes that hold the same are gathered and reduced.

    Not where images are returned: torchmetrics 1.9 cannot gather those itself.
    """
    x, y = images((3, 2, 51, 45))
    gathering = {"dist_sync_fn": lambda state, **_: [state, state], "distributed_available_fn": lambda: True}
    alone = any(option.startswith("return_") for option in options)
    results = []
    for module, dtype in ((ours, torch.float32), (metrics, torch.float64)):
        metric = getattr(module, name)(**options, **({} if alone else gathering)).set_dtype(dtype)
        each = [metric(a.to(dtype), b.to(dtype)) for a, b in ((x, y), (y, 0.8 * x))]
        results.append([each, metric.compute(), metric.total])
        metric.reset()
        assert metric.total == 0
    flat = [torch.cat([part.flatten().double() for part in torch.utils._pytree.tree_leaves(r)]) for r in results]
    assert flat[0].shape == flat[1].shape
    assert torch.allclose(*flat, rtol=2e-6, atol=2e-6)


def test_a_metric_goes_through_pickle(images):
    x, y = images((1, 1, 33, 40))
    metric = ours.StructuralSimilarityIndexMeasure(data_range=1.0)
    metric.update(x, y)
    assert pickle.loads(pickle.dumps(metric)).compute() == metric.compute()  # noqa: S301  # its own


def test_metrics_are_the_originals_with_another_update():
    for name in ours.METRICS:
        assert issubclass(getattr(ours, name), getattr(metrics, name))
    with pytest.raises(AttributeError, match="no attribute 'PeakSignalNoiseRatio'"):
        ours.PeakSignalNoiseRatio  # noqa: B018


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit itself
def test_metrics_go_into_torchscript(images):
    x, y = images((2, 1, 48, 48))
    for name, options in (
        ("StructuralSimilarityIndexMeasure", {}),
        ("MultiScaleStructuralSimilarityIndexMeasure", SHORT),
    ):
        metric = getattr(ours, name)(data_range=1.0, **options)
        assert torch.jit.script(metric).total == 0  # as the originals' own tests do, of metrics within models
        assert metric(x, y) == metric(y, x)


def test_several_scales_of_half_precision_come_in_single_as_there(images):
    x, y = (image.half() for image in images((2, 1, 48, 48)))
    assert getattr(theirs, SEVERAL)(x, y, data_range=1.0, **SHORT).dtype == torch.float32
    assert getattr(ours, SEVERAL)(x, y, data_range=1.0, **SHORT).dtype == torch.float32
