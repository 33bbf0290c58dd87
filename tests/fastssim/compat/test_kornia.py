"""`fastssim.compat.kornia` against kornia."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from fastssim.compat import kornia as ours

theirs = pytest.importorskip("kornia")

OPTIONS = [
    {"window_size": 11},
    {"window_size": 5, "padding": "VALID"},
    {"window_size": 3, "max_val": 255.0},
    {"window_size": 7, "padding": "Same", "eps": 0.0},
    {"window_size": 7, "max_val": 0.1},  # eps takes a tenth
    {"window_size": 7, "eps": 1e-6, "padding": "valid"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_ssim(images, parity, options):
    x, y = images((2, 2, 33, 40))
    parity(lambda a, b: ours.ssim(a, b, **options), lambda a, b: theirs.metrics.ssim(a, b, **options), x, y)
    parity(ours.SSIM(**options), theirs.metrics.SSIM(**options), x, y)


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_loss(images, parity, options, reduction):
    x, y = images((2, 2, 33, 40))
    options = {**options, "reduction": reduction}
    value = 1e-6 * (2 * 2 * 33 * 40 if reduction == "sum" else 1)
    parity(
        lambda a, b: ours.ssim_loss(a, b, **options),
        lambda a, b: theirs.losses.ssim_loss(a, b, **options),
        x,
        y,
        value=value,
    )
    assert ours.SSIMLoss(**options)(x, y).equal(ours.losses.ssim_loss(x, y, **options))


@pytest.mark.parametrize(
    "options",
    [{"window_size": 5}, {"window_size": 5, "padding": "VALID"}, {"window_size": 5, "eps": 1e-6}],
    ids=str,
)
def test_volumes(images, parity, options):
    x, y = images((2, 2, 9, 11, 12))
    parity(lambda a, b: ours.ssim3d(a, b, **options), lambda a, b: theirs.metrics.ssim3d(a, b, **options), x, y)
    assert ours.SSIM3D(**options)(x, y).equal(ours.metrics.ssim3d(x, y, **options))
    for reduction in ("mean", "sum"):
        value = 1e-6 * (x.numel() if reduction == "sum" else 1)
        parity(
            ours.SSIM3DLoss(**options, reduction=reduction),
            theirs.losses.SSIM3DLoss(**options, reduction=reduction),
            x,
            y,
            value=value,
        )
    assert ours.SSIM3DLoss(**options)(x, y).equal(ours.losses.ssim3d_loss(x, y, **options))


@pytest.mark.parametrize("eps", [1e-12, 1e-9])
def test_what_eps_takes_from_black_images(eps):
    """The default is left out, and takes no more than is said; a larger one is reproduced."""
    x = torch.zeros(1, 1, 16, 16)
    expected = theirs.metrics.ssim(x.double(), x.double(), 11, eps=eps)
    found = ours.ssim(x, x, 11, eps=eps)
    assert (found - expected).abs().max() <= (ours.NEGLIGIBLE if eps == 1e-12 else 1e-6)
    assert (found == 1).all() == (eps == 1e-12)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (torch.float16, torch.float16),
        (torch.float32, torch.float64),
        (torch.uint8, torch.uint8),
        (torch.int64, torch.float16),
    ],
)
def test_dtypes(images, first, second):
    x, y = images((1, 2, 20, 24))
    x, y = (x * 4).to(first), (y * 4).to(second)
    expected = theirs.metrics.ssim(x.double(), y.double(), 5, 1.0, eps=0.0)
    found = ours.ssim(x, y, 5, 1.0)
    assert found.dtype == theirs.metrics.ssim(x, y, 5, 1.0).dtype
    tolerance = {torch.float16: 1e-3, torch.float32: 5e-6, torch.float64: 1e-12}[found.dtype]
    assert (found - expected).abs().max() <= tolerance


@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_little_losses_keep_their_digits(dtype, reduction):
    made = torch.Generator().manual_seed(0)
    x = torch.rand(1, 3, 256, 256, generator=made).to(dtype)
    y = (x + 0.02 * torch.randn(x.shape, generator=made)).to(dtype)
    exact = theirs.losses.ssim_loss(x.double(), y.double(), 5, reduction=reduction).item()
    found = ours.ssim_loss(x, y, 5, reduction=reduction)
    assert found.dtype == dtype
    assert found.item() == pytest.approx(exact, rel=max(torch.finfo(dtype).eps, 1e-4))


@pytest.mark.parametrize("name", ["ssim", "ssim_loss"])
def test_errors(same_error, name):
    one, other = getattr(ours, name), getattr(theirs.metrics if name == "ssim" else theirs.losses, name)
    x = torch.rand(1, 1, 12, 12)
    error = theirs.core.exceptions.BaseError
    same_error(TypeError, one, other, [x], x, 5)
    same_error(TypeError, one, other, x, 1, 5)
    same_error(TypeError, one, other, x, x, 5, 1)
    same_error(ValueError, one, other, x[0], x, 5)
    same_error(ValueError, one, other, x, x[0], 5)
    same_error(ValueError, one, other, x, x[..., :6], 5)
    same_error(error, one, other, x, x, 4)
    same_error(TypeError, one, other, x, x, 5.0)
    same_error(error, one, other, x, x, 5, padding="full")


@pytest.mark.parametrize("name", ["ssim3d", "ssim3d_loss"])
def test_errors_of_volumes(same_error, name):
    one, other = getattr(ours, name), getattr(theirs.metrics if name == "ssim3d" else theirs.losses, name)
    x = torch.rand(1, 1, 7, 8, 9)
    error = theirs.core.exceptions.BaseError
    same_error(TypeError, one, other, [x], x, 5)
    same_error(TypeError, one, other, x, x, 5, 1)
    same_error(ValueError, one, other, x[0], x, 5)
    same_error(error, one, other, x, x[..., :6], 5)
    same_error(error, one, other, x, x, 4)
    same_error(error, one, other, x, x, 5, padding="full")


def test_another_reduction(same_error):
    x = torch.rand(1, 1, 12, 12)
    volume = x[:, :, None].expand(1, 1, 12, 12, 12)
    same_error(NotImplementedError, ours.ssim3d_loss, theirs.losses.ssim3d_loss, volume, volume, 5, reduction="image")
    same_error(NotImplementedError, ours.ssim_loss, theirs.losses.ssim_loss, x, x, 5, reduction="image")


def test_kornia_is_not_needed():
    program = (
        "import sys; sys.modules['kornia'] = None\n"
        "import torch; from fastssim.compat import kornia\n"
        "x = torch.rand(1, 1, 12, 12); assert kornia.losses.ssim_loss(x, x, 5) == 0\n"
        "try: kornia.metrics.ssim(x, x, 5, padding='full')\n"
        "except ValueError: print('refused')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "refused\n"


def test_volumes_that_are_none_raise_what_kornia_does():
    x = torch.rand(1, 1, 5, 5, 5)
    for arguments in ((1.0, x), (x, torch.rand(3, 3))):
        with pytest.raises((TypeError, ValueError)) as expected:
            theirs.metrics.ssim3d(*arguments, 3)
        with pytest.raises(type(expected.value), match=str(expected.value).split(", got")[0]):
            ours.ssim3d(*arguments, 3)


def test_modules_lie_where_kornias_do():
    from fastssim.compat.kornia.losses import SSIMLoss, ssim_loss  # noqa: PLC0415  # that it can be imported so is the test
    from fastssim.compat.kornia.metrics import ssim  # noqa: PLC0415  # as above

    assert (SSIMLoss, ssim_loss, ssim) == (ours.SSIMLoss, ours.ssim_loss, ours.ssim)
    assert ours.losses.SSIM3DLoss is ours.SSIM3DLoss
    assert ours.metrics.ssim3d is ours.ssim3d
    with pytest.raises(AttributeError, match="no attribute 'filters'"):
        ours.filters  # noqa: B018  # as above


@pytest.fixture
def several_widths():
    """kornia's loss with windows that are not rounded to float32: they are of torch's default dtype."""

    def made(**options):
        torch.set_default_dtype(torch.float64)
        try:
            return theirs.losses.MS_SSIMLoss(**options)
        finally:
            torch.set_default_dtype(torch.float32)

    return made


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"reduction": "none", "alpha": 0.84, "compensation": 1.0},
        {"reduction": "sum", "alpha": 1.0, "sigmas": (1.5,)},
        {"reduction": "none", "alpha": 0.0, "sigmas": (2.0, 0.6)},
        {"reduction": "none", "data_range": 2.0, "K": (0.02, 0.05), "sigmas": (0.5, 1.0, 2.0)},
    ],
    ids=str,
)
def test_several_widths(images, parity, several_widths, options):
    x, y = images((2, 3, 33, 40))
    value = 1e-6 * options.get("compensation", 200.0) * (2 * 33 * 40 if options.get("reduction") == "sum" else 1)
    parity(ours.MS_SSIMLoss(**options), several_widths(**options), x, y, value=value)


def test_several_widths_of_images_smaller_than_the_window_and_of_one_for_a_batch(images, several_widths):
    x, y = images((3, 2, 6, 9))
    for one, other in ((x, y[:1]), (x[:1], y)):
        expected = several_widths(reduction="none")(*torch.broadcast_tensors(one.double(), other.double()))
        assert (ours.losses.MS_SSIMLoss(reduction="none")(one, other) - expected).abs().max() <= 2e-4


@pytest.mark.parametrize("of_module", [torch.float32, torch.float64, torch.float16])
@pytest.mark.parametrize(
    ("first", "second"),
    [(torch.uint8, torch.uint8), (torch.uint8, torch.float16), (torch.float32, torch.float64), (torch.bfloat16,) * 2],
)
def test_dtypes_of_several_widths(images, several_widths, first, second, of_module):
    x, y = ((image * 255).to(kind) for image, kind in zip(images((1, 2, 20, 24)), (first, second), strict=True))
    options = {"data_range": 255.0, "sigmas": (0.5, 1.5)}
    found = ours.MS_SSIMLoss(**options).to(of_module)(x, y)
    assert found.dtype == theirs.losses.MS_SSIMLoss(**options).to(of_module)(x, y).dtype
    expected = several_widths(**options)(x.double(), y.double()).item()
    assert found.item() == pytest.approx(expected, rel=max(torch.finfo(found.dtype).eps, 1e-6))


def test_errors_of_several_widths(same_error):
    one, other = ours.MS_SSIMLoss(), theirs.losses.MS_SSIMLoss()
    x = torch.rand(2, 3, 12, 12)
    same_error(TypeError, one, other, 1, x)
    same_error(TypeError, one, other, x, 1)
    same_error(ValueError, one, other, x[0], x)
    same_error(ValueError, one, other, x, x[0])
    same_error(theirs.core.exceptions.ShapeError, one, other, x, x[:, :1])
    same_error(theirs.core.exceptions.ShapeError, one, other, x, torch.rand(3, 3, 12, 12))
    same_error(RuntimeError, one, other, x, x.to(torch.complex64))
    kinds = (ours.MS_SSIMLoss(reduction="image"), theirs.losses.MS_SSIMLoss(reduction="image"))
    same_error(NotImplementedError, *kinds, x, x)


def test_checkpoints_with_the_windows_of_older_releases_load():
    model = torch.nn.ModuleDict({"loss": ours.MS_SSIMLoss()})
    assert not model.state_dict()
    model.load_state_dict({"loss._g_masks": torch.rand(15, 1, 33, 33)})
