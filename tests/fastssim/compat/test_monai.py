"""`fastssim.compat.monai` against MONAI."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from fastssim import Gaussian, reference
from fastssim.compat import monai as ours

losses = pytest.importorskip("monai.losses")
metrics = pytest.importorskip("monai.metrics")
theirs = pytest.importorskip("monai.metrics.regression")
data = pytest.importorskip("monai.data")
utils = pytest.importorskip("monai.utils")

SHORT = {"weights": (0.4, 0.6), "kernel_size": 7, "kernel_sigma": 1.2}


@pytest.fixture
def in_double(monkeypatch):
    """Let MONAI compute with float64 images in float64, its windows too, as an oracle must."""
    original = theirs.compute_ssim_and_cs

    def compute(*arguments, **options):
        torch.set_default_dtype(torch.float64)
        try:
            return original(*arguments, **options)
        finally:
            torch.set_default_dtype(torch.float32)

    monkeypatch.setattr(theirs, "convert_data_type", lambda image, **_: (image,))
    monkeypatch.setattr(theirs, "compute_ssim_and_cs", compute)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reduction": "none"},
        {"reduction": utils.LossReduction.SUM, "k1": 0.02, "k2": 0.05},
        {"data_range": 2.0, "win_size": (5, 3), "kernel_sigma": [0.9, 2.0]},
        {"kernel_type": "uniform", "win_size": 7},
        {"kernel_type": theirs.KernelType.UNIFORM, "win_size": (2, 4), "reduction": "none"},
        {"win_size": [2, 4], "kernel_sigma": 1.1},
    ],
    ids=str,
)
@pytest.mark.usefixtures("in_double")
def test_the_loss_is_monais(images, parity, options):
    x, y = images((3, 2, 33, 40))
    parity(ours.SSIMLoss(2, **options), losses.SSIMLoss(2, **options), x, y)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"win_size": (3, 5, 7), "reduction": "none"},
        {"win_size": (2, 4, 6), "reduction": "sum"},
        {"kernel_type": "uniform", "win_size": 7},
    ],
    ids=str,
)
@pytest.mark.usefixtures("in_double")
def test_the_loss_of_volumes_is_monais(images, parity, options):
    x, y = images((2, 2, 13, 19, 21))
    parity(ours.SSIMLoss(3, **options), losses.SSIMLoss(3, **options), x, y)


@pytest.mark.parametrize("sizes", [(11, 11), (5, 3), (2, 4)])
@pytest.mark.parametrize("kernel_type", ["gaussian", "uniform"])
@pytest.mark.usefixtures("in_double")
def test_maps_are_monais(images, parity, sizes, kernel_type):
    x, y = images((2, 2, 23, 30))
    options = {"kernel_type": kernel_type, "k1": 0.02, "k2": 0.04}
    parity(
        lambda a, b: ours.compute_ssim_and_cs(a, b, 2, sizes, (1.5, 1.5), **options),
        lambda a, b: theirs.compute_ssim_and_cs(a, b, 2, sizes, (1.5, 1.5), **options),
        x,
        y,
    )


@pytest.mark.parametrize(
    ("shape", "options"),
    [
        ((2, 2, 176, 192), {}),  # all sides even, down to the last
        ((1, 2, 177, 182), {"data_range": 1.5}),
        ((2, 2, 51, 45), SHORT),
        ((2, 1, 52, 46), {**SHORT, "kernel_size": (2, 4), "k1": 0.03}),
        ((1, 1, 40, 44), {**SHORT, "kernel_type": "uniform", "kernel_size": 7}),
        ((2, 1, 17, 20, 23), SHORT),
        ((1, 1, 30, 30), {**SHORT, "weights": (1.0,)}),
    ],
    ids=str,
)
@pytest.mark.usefixtures("in_double")
def test_several_scales_are_monais(images, parity, shape, options):
    x, y = images(shape)
    parity(
        lambda a, b: ours.compute_ms_ssim(a, b, len(shape) - 2, **options),
        lambda a, b: theirs.compute_ms_ssim(a, b, len(shape) - 2, **options),
        x,
        y,
    )


def noise(dims, *, scales=False):
    """Make the images of MONAI's own tests."""
    shape = (1, 1, *[64] * dims) if scales else (2, 3, *[16] * dims)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        pair = [torch.randn(shape).abs() for _ in range(2)]
    return [image / image.max() for image in pair]


@pytest.mark.parametrize(
    ("dims", "kernel_type", "expected"),
    [(2, "gaussian", 0.045415), (2, "uniform", 0.050103), (3, "gaussian", 0.017644)],
)
def test_values_that_monai_publishes(dims, kernel_type, expected):
    loss = ours.SSIMLoss(dims, kernel_type=kernel_type)(*noise(dims))
    assert loss.item() == pytest.approx(1 - expected, abs=1e-6)


def test_losses_that_monai_publishes():
    loss = ours.SSIMLoss(2, reduction="none")(*noise(2))
    assert loss.numpy() == pytest.approx(np.array([[0.9121], [0.9971]]), rel=1e-4)


@pytest.mark.parametrize(
    ("dims", "kernel_type", "expected"),
    [(2, "gaussian", 0.023176), (2, "uniform", 0.022655), (3, "gaussian", 0.061796)],
)
def test_values_of_several_scales_that_monai_publishes(dims, kernel_type, expected):
    value = ours.compute_ms_ssim(*noise(dims, scales=True), dims, kernel_type=kernel_type, weights=[0.5, 0.5])
    assert value.item() == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none", "mean_batch", "sum_channel"])
@pytest.mark.parametrize(
    ("name", "options"), [("SSIMMetric", {"win_size": 7}), ("MultiScaleSSIMMetric", SHORT)], ids=str
)
def test_metrics_add_up_batches_as_monais(images, name, options, reduction):
    mine, other = (
        getattr(module, name)(2, reduction=reduction, get_not_nans=True, **options) for module in (ours, metrics)
    )
    assert isinstance(mine, getattr(metrics, name))
    for seed in (0, 1):
        x, y = images((3, 2, 30, 26), seed=seed)
        found, expected = mine(y_pred=x, y=y), other(y_pred=x, y=y)
        assert found.shape == expected.shape == (3, 1)
        assert (found - expected).abs().max() < 1e-5
    for found, expected in zip(mine.aggregate(), other.aggregate(), strict=True):
        assert found.shape == expected.shape
        assert torch.allclose(found, expected, atol=3e-5, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.uint8])
def test_other_dtypes_count_as_they_stand_and_give_float32(images, dtype):
    x, y = images((2, 1, 30, 26))
    span = 255.0 if dtype == torch.uint8 else 1.0
    x, y = (span * x).to(dtype), (span * y).to(dtype)
    expected = reference.ssim(x.double().numpy(), y.double().numpy(), data_range=span).mean((1, 2, 3))
    loss = ours.SSIMLoss(2, data_range=span, reduction="none")(x, y)
    assert loss.dtype == losses.SSIMLoss(2, data_range=span, reduction="none")(x, y).dtype == torch.float32
    assert np.abs(1 - loss[:, 0].numpy() - expected).max() < 1e-6


def test_bright_flat_regions_keep_their_variance():
    generator = torch.Generator().manual_seed(0)
    x, y = (0.98 + 0.002 * torch.randn((1, 1, 64, 64), generator=generator) for _ in range(2))
    expected = reference.ssim(x.double().numpy(), y.double().numpy(), window=Gaussian(11, 1.5))
    found, _ = ours.compute_ssim_and_cs(x, y, 2, (11, 11), (1.5, 1.5))
    original, _ = theirs.compute_ssim_and_cs(x, y, 2, (11, 11), (1.5, 1.5))
    assert np.abs(found.numpy() - expected).max() < 2e-6 < np.abs(original.numpy() - expected).max()


def test_equal_images_lose_nothing_and_have_no_gradient():
    x = torch.rand(1, 1, 20, 20, generator=torch.Generator().manual_seed(0), requires_grad=True)
    loss = ours.SSIMLoss(2)(x, x.detach())
    loss.backward()
    assert loss == 0
    assert not x.grad.any()


def test_a_factor_below_zero_leaves_no_nan():
    x = torch.rand(1, 1, 40, 40, generator=torch.Generator().manual_seed(0), requires_grad=True)
    value = ours.compute_ms_ssim(x, 1 - x.detach(), 2, **SHORT)
    value.backward()
    assert value == 0
    assert not x.grad.any()


def test_monais_own_tensors_come_out_as_plain_ones(images):
    x, y = (data.MetaTensor(image) for image in images((1, 1, 20, 20)))
    for module in (ours, metrics):
        assert type(module.SSIMMetric(2)(x, y)) is torch.Tensor
    plain = ours.SSIMLoss(2)(torch.Tensor(x), torch.Tensor(y))
    assert torch.equal(ours.SSIMLoss(2)(x, y), plain)


def test_arrays_are_taken_where_monai_takes_them(images):
    x, y = images((1, 2, 20, 20))
    for module in (ours, theirs):
        of_arrays = module.compute_ssim_and_cs(x.numpy(), y.numpy(), 2, (11, 11), (1.5, 1.5))
        of_tensors = module.compute_ssim_and_cs(x, y, 2, (11, 11), (1.5, 1.5))
        assert all(map(torch.equal, of_arrays, of_tensors))


def test_the_loss_can_be_exported(tmp_path, images):
    x, y = images((2, 2, 16, 16))
    loss = ours.SSIMLoss(2)
    torch.export.save(torch.export.export(loss, (x, y)), tmp_path / "loss.pt2")
    loaded = torch.export.load(tmp_path / "loss.pt2").module()
    assert torch.equal(loaded(x, y), loss(x, y))


def test_the_range_may_be_changed_later(images):
    x, y = images((1, 1, 20, 20))
    loss = ours.SSIMLoss(2)
    loss.data_range = 3.0
    assert torch.equal(loss(x, y), ours.SSIMLoss(2, data_range=3.0)(x, y))


X = torch.zeros(1, 1, 12, 12)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [
        (ValueError, (X[0], X[0])),
        (ValueError, (X[None], X[None])),
        (ValueError, (X, X[..., 1:])),
        (ValueError, (X.numpy(), X.numpy())),
        (RuntimeError, (X[..., :10], X[..., :10])),
    ],
    ids=["3 axes", "5 axes", "two shapes", "arrays", "too small"],
)
def test_errors_of_the_loss_are_monais(same_error, kind, arguments):
    same_error(kind, ours.SSIMLoss(2), losses.SSIMLoss(2), *arguments)


@pytest.mark.parametrize(
    ("kind", "arguments"),
    [(ValueError, (X, X[..., 1:], 2)), (RuntimeError, (X, X, 3)), (RuntimeError, (X[..., :10], X[..., :10], 2))],
    ids=["two shapes", "axes", "too small"],
)
def test_errors_of_maps_are_monais(same_error, kind, arguments):
    dims = arguments[-1]
    same_error(kind, ours.compute_ssim_and_cs, theirs.compute_ssim_and_cs, *arguments, (11,) * dims, (1.5,) * dims)


@pytest.mark.parametrize(
    ("arguments", "options"),
    [((X, X, 2), {}), ((X, X, 3), SHORT), ((X[None], X[None], 2), SHORT), ((X, X[..., 1:], 2), SHORT)],
    ids=["too small", "4 axes", "5 axes", "two shapes"],
)
def test_errors_of_several_scales_are_monais(same_error, arguments, options):
    same_error(ValueError, ours.compute_ms_ssim, theirs.compute_ms_ssim, *arguments, **options)


def test_options_that_mean_nothing_are_refused():
    with pytest.raises(ValueError, match="'median' is not a valid LossReduction: give 'none', 'mean' or 'sum'"):
        ours.SSIMLoss(2, reduction="median")
    with pytest.raises(ValueError, match="kernel_type is 'box'; give 'gaussian' or 'uniform'"):
        ours.SSIMLoss(2, kernel_type="box")(X, X)
    with pytest.raises(ValueError, match="3 sizes and 2 sigmas of a window for 2 spatial dimensions"):
        ours.SSIMLoss(2, win_size=(3, 3, 3))(X, X)
    with pytest.raises(ValueError, match="2 sizes and 1 sigmas of a window for 2 spatial dimensions"):
        ours.compute_ms_ssim(X, X, 2, kernel_sigma=(1.5,))
    with pytest.raises(ValueError, match="spatial_dims is 1; give 2 for images or 3 for volumes"):
        ours.SSIMLoss(1)(X[0], X[0])
    with pytest.raises(ValueError, match=r"windows of \(0, 0\) pixels; give 1 or more along every axis"):
        ours.SSIMLoss(2, win_size=0)(X, X)
    for size in (3, 4):
        with pytest.raises(ValueError, match=r"sigma is 0\.0; it must be finite and above 0"):
            ours.SSIMLoss(2, win_size=size, kernel_sigma=0.0)(X, X)
    with pytest.raises(RuntimeError, match=r"windows of \(11, 11\) pixels do not fit into \(12, 4\)"):
        ours.SSIMLoss(2)(X[..., :4], X[..., :4])


def test_the_loss_is_one_of_torch_with_the_attributes_of_the_original():
    loss, original = ours.SSIMLoss(2, win_size=7), losses.SSIMLoss(2, win_size=7)
    assert isinstance(loss, torch.nn.modules.loss._Loss)
    assert (loss.kernel_size, loss.kernel_sigma) == (original.kernel_size, original.kernel_sigma)
