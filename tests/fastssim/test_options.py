"""Padding, masks, reductions, dtypes and kinds of arrays, all against the float64 reference."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from fastssim import (
    Gaussian,
    L1SSIMLoss,
    MSSSIMLoss,
    SSIMLoss,
    Uniform,
    l1_ssim_loss,
    ms_ssim,
    reference,
    ssim,
    ssim_loss,
    ssim_map,
)
from fastssim.plan import PADDINGS, REDUCTIONS
from fastssim.scales import halve

WINDOW = Gaussian((5, 3), (1.2, 0.8))
SHAPES = [(2, 1, 1, 1), (1, 1, 5, 3), (2, 2, 13, 17), (1, 1, 3, 500), (1, 1, 500, 3), (1, 1, 140, 261)]
# Largest error of one window: one of 5 x 3 has little variance beside its mean, one of which a mask leaves a pixel or
# two has next to none. Measured 6e-6 and 2.5e-5.
MAP = {False: 1e-6, True: 1e-6}
GRADIENT = 2e-6  # relative L2; measured 6e-7
MASKED_GRADIENT = 2e-6


def holes(shape, seed=3):
    """Weights in [0, 1] with holes, one of them larger than the window."""
    rng = np.random.default_rng(seed)
    mask = rng.random(shape) * (rng.random(shape) > 0.4)
    mask[..., :6, :5] = 0
    return torch.tensor(mask, dtype=torch.float32)


def reduced(ssim_map, counted, reduction):
    """Reduce the reference's map over the windows that count."""
    axes = {"image": (1, 2, 3), "channel": (2, 3)}.get(reduction)
    total, number = (ssim_map * counted).sum(axes), counted.sum(axes)
    return total if reduction == "sum" else np.where(number > 0, total / np.maximum(number, 1), 1)


def weights_of(upstream, counted, reduction):
    """The weight that an upstream gradient gives each window."""
    upstream = np.asarray(upstream)
    upstream = upstream.reshape(*upstream.shape, *[1] * (4 - upstream.ndim))
    axes = {"image": (1, 2, 3), "channel": (2, 3)}.get(reduction)
    number = 1 if reduction == "sum" else np.maximum(counted.sum(axes, keepdims=True), 1)
    return upstream / number * counted


def relative(found, expected):
    return np.linalg.norm(found.numpy() - expected) / max(np.linalg.norm(expected), 1e-30)


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "mask"])
@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_padding_masks_and_reductions_equal_the_reference(images, shape, padding, masked):
    if padding == "valid" and shape[2] < 5:
        pytest.skip("no window fits")
    x, y = images(shape)
    mask = holes(shape) if masked else None
    options = {"window": WINDOW, "padding": padding, "mask": mask}
    expected = reference.ssim(x, y, **options)
    counted = np.ones(expected.shape) if mask is None else reference.counted(shape, mask, WINDOW, padding)
    assert np.abs(ssim_map(x, y, **options).numpy() - expected).max() <= MAP[masked]
    for reduction in REDUCTIONS:
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        value = ssim(a, b, reduction=reduction, **options)
        if reduction == "none":
            upstream = torch.rand(value.shape, generator=torch.Generator().manual_seed(1))
            weights = upstream.numpy()
        else:
            wanted = reduced(expected, counted, reduction)
            size = expected.size if reduction == "sum" else 1
            assert np.abs(value.detach().numpy() - wanted).max() <= 2e-6 * size
            without = ssim(x, y, reduction=reduction, **options)
            torch.testing.assert_close(without, value.detach(), rtol=1e-6, atol=1e-6)
            upstream = torch.rand(value.shape, generator=torch.Generator().manual_seed(1))
            weights = np.broadcast_to(weights_of(upstream, counted, reduction), expected.shape)
        by_x, by_y = torch.autograd.grad(value, (a, b), upstream)
        bound = MASKED_GRADIENT if masked else GRADIENT
        assert relative(by_x, reference.ssim_gradient(x, y, weights, **options)) <= bound
        assert relative(by_y, reference.ssim_gradient(y, x, weights, **options)) <= bound


def test_pixels_without_weight_may_hold_anything_and_get_no_gradient(images):
    x, y = images((1, 2, 30, 40))
    mask = holes((30, 40))
    spoilt = torch.where(mask > 0, x, torch.tensor(float("nan"))).requires_grad_()
    clean = x.clone().requires_grad_()
    for image in (spoilt, clean):
        ssim(image, y, window=WINDOW, mask=mask).backward()
    assert torch.equal(spoilt.grad, clean.grad)
    assert (spoilt.grad[..., mask == 0] == 0).all()
    assert torch.isfinite(ssim_map(spoilt, y, window=WINDOW, mask=mask)).all()


def test_masks_of_any_dtype_and_shape_mean_the_same(images):
    x, y = images((2, 3, 20, 30))
    mask = holes((20, 30)) > 0
    expected = ssim(x, y, window=WINDOW, mask=mask)
    for other in (mask.to(torch.uint8), mask.float(), mask.half(), mask[None, None], mask.expand(2, 3, 20, 30)):
        assert torch.equal(ssim(x, y, window=WINDOW, mask=other), expected)
    ones = ssim(x, y, window=WINDOW, mask=torch.ones(20, 30, dtype=torch.bool))
    assert ones.item() == pytest.approx(ssim(x, y, window=WINDOW).item(), abs=1e-6)


@pytest.mark.parametrize("masked", [False, True], ids=["plain", "mask"])
@pytest.mark.parametrize("padding", PADDINGS)
def test_equal_images_have_exactly_one_and_a_gradient_of_exactly_zero(images, padding, masked):
    x, _ = images((1, 2, 30, 40))
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    value = ssim(a, b, window=WINDOW, padding=padding, mask=holes((30, 40)) if masked else None)
    value.backward()
    assert value.item() == 1
    assert (a.grad == 0).all()
    assert (b.grad == 0).all()


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("padding", PADDINGS)
def test_a_bad_pixel_spoils_only_the_gradients_of_pixels_that_share_a_window(images, padding, bad):
    x, y = images((1, 1, 40, 300))
    x[0, 0, 20, 150] = bad
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    ssim(a, b, window=WINDOW, padding=padding).backward()
    for gradient in (a.grad, b.grad):
        spoilt = ~torch.isfinite(gradient)
        assert spoilt[0, 0, 20, 150]
        near = torch.zeros_like(spoilt)
        near[0, 0, 16:25, 148:153] = True  # twice the window's reach
        assert not spoilt[~near].any()


def test_an_image_without_weight_shows_no_difference(images):
    x, y = images((2, 1, 20, 30))
    mask = torch.ones(2, 1, 20, 30)
    mask[1] = 0
    a = x.clone().requires_grad_()
    value = ssim(a, y, window=WINDOW, mask=mask, reduction="image")
    value.sum().backward()
    assert value[1] == 1
    assert (a.grad[1] == 0).all()
    assert value[0].item() == pytest.approx(ssim(x[:1], y[:1], window=WINDOW).item(), abs=1e-6)


@pytest.mark.parametrize("padding", ["valid", "symmetric"])
def test_unbiased_moments_equal_the_reference(images, padding):
    x, y = images((1, 2, 21, 19))
    options = {"window": WINDOW, "padding": padding, "unbiased": True}
    a = x.clone().requires_grad_()
    value = ssim(a, y, **options)
    value.backward()
    expected = reference.ssim(x, y, **options)
    assert value.item() == pytest.approx(expected.mean(), abs=1e-6)
    weights = np.full(expected.shape, 1 / expected.size)
    assert relative(a.grad, reference.ssim_gradient(x, y, weights, **options)) <= GRADIENT


# --------------------------------------------------------------------------------------------------------- dtypes


def stored(image, dtype):
    """Store an image in [0, 1] as a dtype."""
    if dtype in {torch.uint8, torch.uint16}:
        return torch.from_numpy(
            np.round(image.numpy() * (255 if dtype == torch.uint8 else 65535)).astype(str(dtype)[6:])
        )
    return image.to(dtype)


def as_read(image):
    """What the kernel is to read of a stored image."""
    largest = {torch.uint8: 255, torch.uint16: 65535}.get(image.dtype)
    return image.float() / largest if largest else image.float()


DTYPES = [torch.float32, torch.float16, torch.bfloat16, torch.uint8, torch.uint16]


@pytest.mark.parametrize("second", DTYPES, ids=str)
@pytest.mark.parametrize("first", DTYPES, ids=str)
def test_every_dtype_gives_the_numbers_of_its_conversion(images, first, second):
    x, y = images((1, 2, 20, 37))
    a, b = stored(x, first), stored(y, second)
    expected = ssim_map(as_read(a), as_read(b), window=WINDOW)
    found = ssim_map(a, b, window=WINDOW)
    assert found.dtype == torch.float32
    assert torch.equal(found, expected)
    strided = a.transpose(2, 3).contiguous().transpose(2, 3), b[..., :1].expand(-1, -1, -1, 37)
    assert torch.equal(
        ssim_map(*strided, window=WINDOW), ssim_map(*(as_read(image).contiguous() for image in strided), window=WINDOW)
    )


def test_every_half_precision_number_is_read_exactly():
    bits = torch.from_numpy(np.arange(65536, dtype=np.uint16).view(np.int16).copy()).reshape(1, 1, 256, 256)
    for dtype in (torch.float16, torch.bfloat16):
        numbers = bits.view(dtype)
        # A window of one pixel whose C1 decides: SSIM = (2 x y + C1) / (x^2 + y^2 + C1) tells the pixels apart.
        options = {"window": Uniform(1), "data_range": 100.0}
        found, expected = (ssim_map(n, torch.ones_like(n), **options) for n in (numbers, numbers.float()))
        assert torch.equal(found.nan_to_num(7), expected.nan_to_num(7))
        assert found.unique().numel() > 10_000


def test_float64_beside_any_other_computes_in_float64(images):
    x, y = images((1, 1, 20, 37), torch.float64)
    found = ssim(x, y.float(), window=WINDOW)
    assert found.dtype == torch.float64
    assert found.item() == pytest.approx(reference.ssim(x, y.float(), window=WINDOW).mean(), abs=1e-13)


def test_integers_are_fractions_with_a_data_range_of_one_and_numbers_with_any_other(images):
    x, y = (stored(image, torch.uint8) for image in images((1, 1, 24, 30)))
    fractions = ssim(x, y, window=WINDOW)
    assert fractions.item() == pytest.approx(ssim(x, y, window=WINDOW, data_range=255).item(), abs=1e-6)
    assert fractions.item() == pytest.approx(ssim(x.float() / 255, y, window=WINDOW).item(), abs=1e-6)
    as_numbers = ssim(x.float(), y, window=WINDOW, data_range=255)
    assert as_numbers == ssim(x.float(), y.float(), window=WINDOW, data_range=255)
    twelve_bits = (x.to(torch.int32) * 16).to(torch.uint16)
    expected = reference.ssim(twelve_bits.numpy(), y.numpy() * 16.0, window=WINDOW, data_range=4095).mean()
    assert ssim(twelve_bits, y.float() * 16, window=WINDOW, data_range=4095).item() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
@pytest.mark.parametrize("reduction", ["mean", "none"])
def test_gradients_come_in_the_dtype_of_their_image(images, dtype, reduction):
    x, y = images((1, 1, 20, 37))
    a, b = x.to(dtype).requires_grad_(), y.clone().requires_grad_()
    single = x.to(dtype).float().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        value = ssim(a, b, window=WINDOW, reduction=reduction)
    assert value.dtype == torch.float32
    value.sum().mul(1000).backward()  # as a scaler does
    ssim(single, y, window=WINDOW, reduction=reduction).sum().mul(1000).backward()
    assert a.grad.dtype == dtype
    assert b.grad.dtype == torch.float32
    assert torch.equal(a.grad, single.grad.to(dtype))


# ---------------------------------------------------------------------------------------------------- kinds of array


def test_numpy_in_numpy_out(images):
    x, y = (image.numpy() for image in images((2, 3, 20, 37)))
    expected = reference.ssim(x, y, window=WINDOW)
    score = ssim(x, y, window=WINDOW)
    assert isinstance(score, np.float32)
    assert score == pytest.approx(expected.mean(), abs=1e-6)
    found = ssim_map(x[0, 0], y[0, 0], window=WINDOW)
    assert isinstance(found, np.ndarray)
    assert found.shape == expected.shape[2:]
    assert ssim_map(x[0], y[0], window=WINDOW).shape == expected.shape[1:]
    assert ssim(x[0], y[0], window=WINDOW, reduction="channel").shape == (3,)
    assert ssim(x[0], y[0], window=WINDOW, reduction="image").shape == ()
    assert ssim(x, y, window=WINDOW, reduction="image").shape == (2,)
    assert ssim_loss(x, y, window=WINDOW) == pytest.approx(1 - expected.mean(), abs=1e-6)


def test_numpy_views_of_any_kind_are_read_as_they_are(images):
    x, y = (image.numpy() for image in images((20, 37)))
    expected = ssim_map(x, y, window=WINDOW)
    locked = x.copy()
    locked.flags.writeable = False
    assert (ssim_map(locked, y, window=WINDOW) == expected).all()
    assert (ssim_map(np.asfortranarray(x), y, window=WINDOW) == expected).all()
    assert (ssim_map(np.ascontiguousarray(x[::-1])[::-1], y, window=WINDOW) == expected).all()
    packed = np.zeros(x.shape, [("flag", "u1"), ("grey", "f4")])  # 5 bytes each
    packed["grey"] = x
    assert (ssim_map(packed["grey"], y, window=WINDOW) == expected).all()
    every_second = np.repeat(x, 2, axis=1)[:, ::2]
    assert (ssim_map(every_second, y, window=WINDOW) == expected).all()


class Foreign:
    """An array of a library that speaks DLPack and the array API, and nothing else."""

    def __init__(self, array):
        self._array = array
        self.shape = array.shape

    def __dlpack__(self, **options):
        return self._array.__dlpack__(**options)

    def __dlpack_device__(self):
        return self._array.__dlpack_device__()

    def __array_namespace__(self):
        return Foreign

    @staticmethod
    def from_dlpack(array):
        return Foreign(np.from_dlpack(array))


def test_any_dlpack_producer_gets_its_own_kind_back(images):
    x, y = (image.numpy() for image in images((1, 1, 20, 37)))
    found = ssim_map(Foreign(x), Foreign(y), window=WINDOW)
    assert isinstance(found, Foreign)
    assert (found._array == ssim_map(x, y, window=WINDOW)).all()


def test_a_producer_whose_library_takes_nothing_gets_a_tensor(images):
    class OneWay:
        """Speaks DLPack; its library does not listen."""

        def __init__(self, array):
            self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__
            self.shape = array.shape

    x, y = (image.numpy() for image in images((1, 1, 20, 37)))
    found = ssim_map(OneWay(x), OneWay(y), window=WINDOW)
    assert isinstance(found, torch.Tensor)
    assert (found.numpy() == ssim_map(x, y, window=WINDOW)).all()
    assert ssim(x, OneWay(y), window=WINDOW) == ssim(x, y, window=WINDOW)


class Bare:
    """What speaks DLPack and says nothing of its shape, which the protocol does not ask for."""

    def __init__(self, array):
        self.__dlpack__, self.__dlpack_device__ = array.__dlpack__, array.__dlpack_device__


@pytest.mark.parametrize("reduction", ["mean", "channel", "none"])
def test_a_producer_need_not_say_its_shape(images, reduction):
    x, y = (image[0].numpy() for image in images((1, 2, 20, 37)))
    found = ssim(Bare(x), Bare(y), window=WINDOW, reduction=reduction)
    assert isinstance(found, torch.Tensor)
    np.testing.assert_array_equal(found, ssim(x, y, window=WINDOW, reduction=reduction))


class Turned(Bare):
    """CuPy's arrays in this respect: they hand out strides below 0, on which torch ends the process."""

    def __init__(self, array):
        super().__init__(array)
        self._array, self.strides = array, array.strides

    def copy(self):
        return Turned(self._array.copy())


def test_a_producer_may_have_negative_strides(images):
    x, y = (image.numpy() for image in images((1, 2, 20, 37)))
    found = ssim_map(Turned(x[..., ::-1]), Turned(y[..., ::-1, :]), window=WINDOW)
    assert (found.numpy() == ssim_map(x[..., ::-1], y[..., ::-1, :], window=WINDOW)).all()


# ------------------------------------------------------------------------------------------------------------- loss


@pytest.mark.parametrize("reduction", ["mean", "image", "channel", "none"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"mask": holes((21, 30))},
        {"window": Uniform(7), "padding": "zeros"},
        {"data_range": 1e8},
        {"unbiased": True},
    ],
    ids=["plain", "mask", "uniform", "scaled", "unbiased"],
)
def test_the_loss_and_its_gradient_are_those_of_one_minus_ssim_to_the_last_bit(images, options, reduction):
    x, y = images((2, 2, 21, 30))
    a, b = (x.clone().requires_grad_() for _ in range(2))
    loss, expected = ssim_loss(a, y, reduction=reduction, **options), 1 - ssim(b, y, reduction=reduction, **options)
    assert torch.equal(loss, expected)
    assert torch.equal(ssim_loss(x, y, reduction=reduction, **options), expected)
    upstream = torch.rand(loss.shape, generator=torch.Generator().manual_seed(1))
    loss.backward(upstream)
    expected.backward(upstream)
    assert torch.equal(a.grad, b.grad)
    assert a.grad.abs().max() > 0


def test_the_gradient_of_the_loss_is_not_multiplied_and_its_options_are_checked(images, monkeypatch):
    x, y = images((1, 1, 21, 30))
    x.requires_grad_()
    multiplied = []
    monkeypatch.setattr(torch.Tensor, "mul_", lambda gradient, _: multiplied.append(gradient))
    ssim_loss(x, y).backward()
    assert not multiplied
    (1 - ssim(x, y)).backward()
    assert len(multiplied) == 1
    with pytest.raises(TypeError, match=r"ssim_loss\(\) got an unexpected keyword argument 'windw'"):
        ssim_loss(x, y, windw=WINDOW)
    with pytest.raises(TypeError, match=r"ssim_map\(\) got an unexpected keyword argument 'reduction'.* but reduction"):
        ssim_map(x, y, reduction="mean")


@pytest.mark.parametrize("padding", PADDINGS)
@pytest.mark.parametrize("reduction", ["mean", "image", "channel"])
def test_l1_and_ssim_in_one_pass_equal_the_reference(images, padding, reduction):
    x, y = images((2, 2, 21, 300))
    y[:, :, :4] = x[:, :, :4]  # where the sign is 0
    options = {"window": WINDOW, "padding": padding}
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    value = l1_ssim_loss(a, b, alpha=0.3, reduction=reduction, **options)
    expected = reference.ssim(x, y, **options)
    counted = np.ones(expected.shape)
    distance = (x.double() - y.double()).numpy()
    wanted = 0.3 * reduced(np.abs(distance), np.ones(distance.shape), reduction)
    wanted = wanted + 0.7 * (1 - reduced(expected, counted, reduction))
    assert np.abs(value.detach().numpy() - wanted).max() <= 1e-6
    without = l1_ssim_loss(x, y, alpha=0.3, reduction=reduction, **options)
    torch.testing.assert_close(without, value.detach(), rtol=1e-6, atol=1e-6)
    upstream = torch.rand(value.shape, generator=torch.Generator().manual_seed(1))
    by_x, by_y = torch.autograd.grad(value, (a, b), upstream)
    sign = 0.3 * np.sign(distance) * weights_of(upstream, np.ones(distance.shape), reduction)
    weights = -0.7 * weights_of(upstream, counted, reduction)
    assert relative(by_x, sign + reference.ssim_gradient(x, y, weights, **options)) <= GRADIENT
    assert relative(by_y, -sign + reference.ssim_gradient(y, x, weights, **options)) <= GRADIENT


def test_l1_and_ssim_with_a_mask_equal_the_reference(images):
    x, y = images((2, 1, 21, 30))
    mask = holes((21, 30))
    options = {"window": WINDOW, "mask": mask}
    a = torch.where(mask > 0, x, torch.tensor(float("nan"))).requires_grad_()
    value = l1_ssim_loss(a, y, alpha=0.3, **options)
    value.backward()
    expected = reference.ssim(x, y, **options)
    counted = reference.counted(tuple(x.shape), mask, WINDOW, "valid")
    distance = ((x - y).abs().numpy() * mask.numpy()).sum() / (2 * mask.numpy().sum())
    assert value.item() == pytest.approx(0.3 * distance + 0.7 * (1 - expected[counted].mean()), abs=1e-6)
    sign = 0.3 * torch.sign(x - y).numpy() * mask.numpy() / (2 * mask.numpy().sum())
    gradient = sign + reference.ssim_gradient(x, y, -0.7 * counted / counted.sum(), **options)
    assert relative(a.grad, gradient) <= GRADIENT


def test_the_loss_of_equal_images_is_zero_with_a_gradient_of_zero(images):
    x, _ = images((2, 3, 40, 50))
    a = x.clone().requires_grad_()
    value = L1SSIMLoss(alpha=0.5, window=WINDOW, padding="reflect")(a, x)
    value.backward()
    assert value.item() == 0
    assert (a.grad == 0).all()


def test_modules_take_masks_and_say_what_they_are(images):
    x, y = images((1, 1, 20, 37))
    mask = holes((20, 37))
    assert SSIMLoss(window=WINDOW)(x, y, mask) == ssim_loss(x, y, window=WINDOW, mask=mask)
    module = L1SSIMLoss(alpha=0.25, window=WINDOW)
    assert module(x, y, mask) == l1_ssim_loss(x, y, alpha=0.25, window=WINDOW, mask=mask)
    assert "alpha=0.25" in repr(module)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"mask": torch.ones(5, 5)}, ValueError, r"mask has shape \(5, 5\); it must broadcast"),
        ({"mask": torch.full((16, 16), 2.0)}, ValueError, r"weights from 2.0 to 2.0; they must lie in \[0, 1\]"),
        ({"mask": torch.full((16, 16), -0.5)}, ValueError, "weights from -0.5"),
        ({"mask": torch.full((16, 16), float("nan"))}, ValueError, "weights from nan"),
        ({"mask": torch.ones(16, 16, dtype=torch.int64)}, TypeError, "mask is torch.int64"),
        ({"mask": torch.ones(16, 16, requires_grad=True)}, ValueError, r"mask.detach\(\)"),
        ({"mask": torch.ones(16, 16, device="meta")}, ValueError, "mask is on meta"),
        ({"mask": "x"}, TypeError, "mask is a str"),
        ({"mask": torch.ones(16, 16), "unbiased": True}, ValueError, "not defined with a mask"),
    ],
)
def test_bad_masks_are_refused(options, kind, words):
    x = torch.zeros(1, 1, 16, 16)
    for function in (ssim, l1_ssim_loss):
        with pytest.raises(kind, match=words):
            function(x, x, window=WINDOW, **options)


@pytest.mark.parametrize(
    ("options", "kind", "words"),
    [
        ({"alpha": 1.5}, ValueError, r"alpha is 1.5; it must lie in \[0, 1\]"),
        ({"alpha": float("nan")}, ValueError, "alpha is nan"),
        ({"alpha": "1"}, TypeError, "alpha is a str"),
        ({"reduction": "none"}, ValueError, "reduction is 'none'; give one of 'mean', 'image', 'channel'"),
    ],
)
def test_bad_options_of_the_loss_are_refused(options, kind, words):
    x = torch.zeros(1, 1, 16, 16)
    with pytest.raises(kind, match=words):
        l1_ssim_loss(x, x, **options)
    with pytest.raises(kind, match=words):
        L1SSIMLoss(**options)


def test_a_sum_is_no_loss():
    with pytest.raises(ValueError, match="reduction is"):
        ssim_loss(torch.zeros(1, 1, 16, 16), torch.zeros(1, 1, 16, 16), reduction="sum")
    with pytest.raises(ValueError, match="reduction is"):
        SSIMLoss(reduction="sum")


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (SSIMLoss, "'mean', 'image', 'channel', 'none'"),
        (L1SSIMLoss, "'mean', 'image', 'channel'"),
        (MSSSIMLoss, "'mean', 'image', 'channel'"),
    ],
)
def test_a_loss_names_the_reductions_that_it_has(module, words):
    with pytest.raises(ValueError, match=f"reduction is 'sum'; give one of {words}$"):
        module(reduction="sum")


@pytest.mark.parametrize("scale", [1e-29, 1e-12, 1e12, 1e29])
def test_a_range_far_from_one_is_like_any_other(images, scale):
    x, y = images((1, 2, 24, 26))
    for function, bound in (
        (lambda a, b, s: ssim(a, b, data_range=s), 1e-6),
        (lambda a, b, s: ms_ssim(a, b, data_range=s, weights=(0.5, 0.5)), 1e-6),
        (lambda a, b, s: l1_ssim_loss(a, b, data_range=s, alpha=0), 1e-6),
    ):
        found = []
        for factor in (1.0, scale):
            a, b = (x * factor).requires_grad_(), (y * factor).requires_grad_()
            value = function(a, b, factor)
            value.backward()
            found.append((value.detach(), a.grad * factor, b.grad * factor))
        for one, other in zip(*found, strict=True):
            torch.testing.assert_close(other, one, rtol=1e-3, atol=bound * one.abs().max().item())


def test_numbers_of_numpy_are_numbers(images):
    x, y = images((1, 1, 20, 22))
    expected = ssim(x, y, data_range=2.0, window=Gaussian(5, 1.0))
    window = Gaussian(np.int64(5), np.float32(1))
    assert window == Gaussian(5, 1.0)
    for data_range in (np.float16(2), np.float32(2), np.int64(2)):
        assert torch.equal(ssim(x, y, data_range=data_range, window=window), expected)
    assert torch.equal(ssim(x, y, unbiased=np.bool_(1)), ssim(x, y, unbiased=True))


@pytest.mark.parametrize("data_range", [np.float16(0), np.float16("inf"), np.float16("nan"), np.longdouble("1e4000")])
def test_numbers_of_numpy_have_the_bounds_of_all(data_range):
    image = torch.zeros(1, 1, 16, 16)
    with pytest.raises(ValueError, match=r"data_range is .*; it must be finite and above 0"):
        ssim(image, image, data_range=data_range)


@pytest.mark.parametrize("reduction", [np.array(["mean"]), np.array(["mean", "sum"]), ["mean"], None])
def test_a_word_is_a_string(reduction):
    image = torch.zeros(1, 1, 16, 16)
    with pytest.raises(ValueError, match=r"reduction is .*; give one of 'mean', 'sum'"):
        ssim(image, image, reduction=reduction)


def test_images_whose_channels_come_last_are_told_so():
    image = np.zeros((200, 200, 3), np.float32)
    words = r"; if the last axis holds channels, move it before the pixels: \(C, H, W\)$"
    for function in (ssim, ms_ssim):
        with pytest.raises(ValueError, match=words):
            function(image, image)
    with pytest.raises(ValueError, match=r"move it before the pixels: \(C, D, H, W\)$"):
        ssim(image[None], image[None], dims=3)
    with pytest.raises(ValueError, match=r"larger images, or padding$"):
        ssim(image[:, :8, 0], image[:, :8, 0])


def negated(image):
    """The same pixels, as a tensor that torch negates when it reads it."""
    return torch.complex(torch.zeros(image.shape), -image).conj().imag


def test_pixels_that_torch_negates_as_it_reads_them_are_negated(images):
    x, y = images((1, 2, 20, 22))
    mask, upstream = torch.rand(20, 22), torch.rand(1, 2, 16, 20)
    results = []
    for view in (torch.clone, negated):
        a, b = view(x).detach().requires_grad_(), view(y).detach().requires_grad_()
        assert view is torch.clone or a.is_neg()
        value = ssim(a, b, window=WINDOW, mask=view(mask))
        windows = ssim_map(a, b, window=WINDOW)
        gradients = torch.autograd.grad((value, windows), (a, b), (torch.tensor(1.0), view(upstream)))
        results.append((value, ms_ssim(a, b, window=WINDOW, weights=(0.5, 0.5)), windows, *gradients))
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(other, one, rtol=0, atol=0)


def test_zeros_that_torch_keeps_no_memory_for(images):
    x, y = images((1, 2, 20, 22))
    a = x.clone().requires_grad_()
    for function in (lambda: ssim_map(a, y, window=WINDOW), lambda: ssim(a, y, window=WINDOW), lambda: halve(a)):
        torch.sgn(function() - 0.5).sum().backward()  # whose gradient torch says, and does not store
        assert (a.grad == 0).all()
    nowhere = torch._efficientzerotensor((1, 2, 20, 22))
    assert nowhere.data_ptr() == 0
    assert ssim(nowhere, y, window=WINDOW) == ssim(torch.zeros_like(y), y, window=WINDOW)


def test_the_upstream_of_halves_may_have_any_strides(images):
    image, _ = images((2, 3, 7, 8))
    a = image.clone().requires_grad_()
    for upstream in (torch.ones(1).expand(2, 3, 3, 4), torch.rand(4, 3, 3, 2).permute(3, 1, 2, 0)):
        (found,) = torch.autograd.grad(halve(a), a, upstream)
        (expected,) = torch.autograd.grad(torch.nn.functional.avg_pool2d(a, 2), a, upstream)
        assert torch.equal(found, expected)


def test_arrays_that_would_be_misread_are_refused():
    image = np.zeros((20, 20), np.float32)
    with pytest.raises(TypeError, match=r"x is a masked array; give x.data, and to leave pixels out mask=~x.mask"):
        ssim(np.ma.masked_array(image, image == 0), image)
    with pytest.raises(TypeError, match="x is an array of <f16; give float16"):
        ssim(image.astype(np.longdouble), image)
    with pytest.raises(TypeError, match="mask is an array of <i8; give bool, uint8, or a float"):
        ssim(image, image, mask=image.astype(np.int64))
    with pytest.raises(ValueError, match="x is on meta, where it has no pixels"):
        ssim(torch.zeros(1, 1, 20, 20, device="meta"), torch.zeros(1, 1, 20, 20, device="meta"))


def test_black_images_are_equal_with_the_least_constants():
    x = torch.zeros(1, 1, 16, 16, requires_grad=True)
    value = ssim(x, torch.zeros(1, 1, 16, 16), k1=1e-9, k2=1e-9)
    value.backward()
    assert value.item() == 1
    assert not x.grad.any()
    assert ssim(x, x, k1=0).isnan()


@pytest.mark.parametrize("constant", [1e-9, 1e-5, 2.0**30])
@pytest.mark.parametrize("data_range", [1e-6, 1e-3, 0.1, 255.0, 1e6])
def test_all_constants_go_with_all_ranges(images, data_range, constant):
    black, (x, y) = torch.zeros(1, 1, 32, 32), images((1, 1, 32, 32))
    options = {"data_range": data_range, "k1": constant, "k2": constant}
    for function in (ssim, partial(ms_ssim, weights=(0.5, 0.5))):
        a = black.clone().requires_grad_()
        value = function(a, black, **options)
        value.backward()
        assert value.item() == 1
        assert not a.grad.any()
        expected = function(x.double(), y.double(), **options | {"data_range": 1.0})
        assert function(x * data_range, y * data_range, **options).item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("name", ["k1", "k2"])
def test_constants_too_little_for_float32_are_refused(images, name):
    with pytest.raises(ValueError, match=f"{name} is 1e-10, too little for float32 .*; give 0, or at least 1e-9"):
        ssim(*images((1, 1, 20, 37)), window=WINDOW, **{name: 1e-10})


@pytest.mark.parametrize("options", [{"data_range": 1e200}, {"data_range": 10**400}, {"k1": 1e200}, {"k2": 1e10}])
def test_numbers_that_would_overflow_are_refused(options):
    image = torch.zeros(1, 1, 16, 16)
    with pytest.raises(ValueError, match="it must be finite and"):
        ssim(image, image, **options)
