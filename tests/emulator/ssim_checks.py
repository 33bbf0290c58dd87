"""What the public functions must show on any device; run in the emulator and, by ``pytest -m gpu``, on a GPU."""

from __future__ import annotations

import numpy as np
import torch

import fastssim
from fastssim import Gaussian, Uniform, reference
from fastssim.compat import fused_ssim, kornia, pytorch_msssim, torchmetrics
from fastssim.cuda.arrays import ssim_and_gradient

VALUE = {torch.float32: 1e-6, torch.float64: 1e-13}
GRADIENT = {torch.float32: 2e-6, torch.float64: 1e-12}  # relative L2
MAP = {torch.float32: 2e-6, torch.float64: 1e-11}
SHAPE = (2, 2, 43, 71)
SOLID = (2, 2, 5, 9, 11)
SOLID_WINDOW = Gaussian((3, 5, 7), (0.8, 1.2, 1.5))


def pair(device, shape=SHAPE, dtype=torch.float32, seed=0):
    """Two related images in [0, 1]."""
    rng = np.random.default_rng(seed)
    rows, columns = np.ogrid[: shape[-2], : shape[-1]]
    clean = 0.5 + 0.4 * np.sin(rows / 5 + rng.random()) * np.cos(columns / 7 + rng.random())
    x = np.clip(clean + rng.normal(0, 0.05, shape), 0, 1)
    y = np.clip(x + rng.normal(0, 0.1, shape), 0, 1)
    return torch.tensor(x, dtype=dtype).to(device), torch.tensor(y, dtype=dtype).to(device)


def array(tensor):
    """A tensor's numbers, float64."""
    return tensor.detach().cpu().double().numpy()


EDGES = {  # of row r and column c: brightness changes within a window's reach, and not around it
    "an edge across": lambda r, c: np.where(r > 40, 0.9, 0.1) + 0 * c,
    "an edge down": lambda r, c: np.where(c > 40, 0.9, 0.1) + 0 * r,
    "an edge aslant": lambda r, c: np.where(r + c > 90, 0.95, 0.05),
    "steps": lambda r, c: r // 13 % 2 * 0.8 + 0.1 + 0 * c,
    "lines": lambda r, c: np.where(r % 24 == 0, 1.0, 0.1) + 0 * c,
    "dots": lambda r, c: np.where((r % 17 == 0) & (c % 19 == 0), 1.0, 0.1),
    "squares": lambda r, c: (r // 16 + c // 16) % 2 * 0.9 + 0.05,
    "a ramp": lambda r, c: r / 96 + 0 * c,
}


def edges(kind, noise):
    """Two images that differ a little, [1, 1, 96, 90]."""
    rng = np.random.default_rng(0)
    clean = EDGES[kind](*np.ogrid[:96, :90])
    x = np.clip(clean + rng.normal(0, noise, clean.shape), 0, 1)[None, None].astype(np.float32)
    return x, np.clip(x + rng.normal(0, max(noise, 0.003), x.shape), 0, 1).astype(np.float32)


def assert_close(gradient, exact, bound):
    """Compare gradients as vectors."""
    difference = np.linalg.norm(array(gradient) - exact)
    assert difference <= bound * np.linalg.norm(exact), difference / np.linalg.norm(exact)


def averaged(ssim_map, reduction):
    """Reduce a reference's map, and the weight of every window in it."""
    axes = {"mean": (0, 1, 2, 3), "sum": (0, 1, 2, 3), "image": (1, 2, 3), "channel": (2, 3)}[reduction]
    value = ssim_map.sum(axes) if reduction == "sum" else ssim_map.mean(axes)
    return value, 1 if reduction == "sum" else value.size / ssim_map.size


def reductions(device):
    """Every reduction, and the gradient to both images."""
    x, y = pair(device)
    expected = reference.ssim(array(x), array(y))
    for reduction in ("mean", "sum", "image", "channel"):
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        value = fastssim.ssim(a, b, reduction=reduction)
        exact, weight = averaged(expected, reduction)
        assert value.device == x.device
        assert np.abs(array(value) - exact).max() <= VALUE[x.dtype] * (expected.size if reduction == "sum" else 1)
        value.sum().backward()
        ones = np.full(expected.shape, weight)
        assert_close(a.grad, reference.ssim_gradient(array(x), array(y), ones), GRADIENT[x.dtype])
        assert_close(b.grad, reference.ssim_gradient(array(y), array(x), ones), GRADIENT[x.dtype])
        assert abs(array(fastssim.ssim(x, y, reduction=reduction)) - array(value)).max() <= 1e-6 * abs(exact).max()


def maps(device):
    """The map, and its gradient under an upstream gradient of any strides."""
    x, y = pair(device)
    a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
    ssim_map = fastssim.ssim_map(a, b, padding="reflect")
    expected = reference.ssim(array(x), array(y), padding="reflect")
    assert np.abs(array(ssim_map) - expected).max() <= MAP[x.dtype]
    upstream = torch.rand(71, 43, generator=torch.Generator().manual_seed(0)).to(device).t().expand(SHAPE)
    ssim_map.backward(upstream)
    for gradient, by in ((a.grad, (x, y)), (b.grad, (y, x))):
        exact = reference.ssim_gradient(*map(array, by), array(upstream), padding="reflect")
        assert_close(gradient, exact, GRADIENT[x.dtype])


def assert_mean_and_gradient(x, y, bound, *, by_second=False, **options):
    """Compare the mean and its gradient by x, or by y alone, with the reference."""
    images = [x.clone(), y.clone()]
    wanted = images[by_second].requires_grad_()
    value = fastssim.ssim(*images, **options)
    expected = reference.ssim(array(x), array(y), **options)
    assert abs(value.item() - expected.mean()) <= VALUE[x.dtype]
    value.backward()
    ones = np.full(expected.shape, 1 / expected.size)
    pair_of = (y, x) if by_second else (x, y)
    assert_close(wanted.grad, reference.ssim_gradient(*map(array, pair_of), ones, **options), bound)


def paddings(device):
    """Every padding, value and gradient."""
    x, y = pair(device)
    for padding in ("zeros", "reflect", "symmetric", "replicate"):
        assert_mean_and_gradient(x, y, GRADIENT[x.dtype], padding=padding)


def windows(device):
    """Windows of several kinds, a small and a large one among them."""
    x, y = pair(device)
    for window in (Uniform(7), Gaussian((3, 5), 1.0), Uniform(33), Uniform(1)):
        assert_mean_and_gradient(x, y, 2e-6, window=window)


def unbiased(device):
    """scikit-image's covariance."""
    x, y = pair(device, dtype=torch.float64)
    value = fastssim.ssim(x, y, window=Uniform(7), unbiased=True)
    expected = reference.ssim(array(x), array(y), window=Uniform(7), unbiased=True)
    assert abs(value.item() - expected.mean()) <= VALUE[x.dtype]


def dtypes(device):
    """Every dtype, also beside another; gradients come in the image's own."""
    clean, other = pair(device, dtype=torch.float64)
    for dtype, target in (
        (torch.float64, torch.float64),
        (torch.float32, torch.float64),
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.uint8),
        (torch.float16, torch.uint16),
    ):
        largest = {torch.uint8: 255, torch.uint16: 65535}.get(target, 1)
        a = clean.to(dtype, copy=True).requires_grad_()
        b = other.cpu() * largest
        b = (b.round().to(torch.int32).to(target) if largest > 1 else b.to(target)).to(device)
        value = fastssim.ssim(a, b)
        wide = torch.float64 if torch.float64 in (dtype, target) else torch.float32
        assert value.dtype == wide
        expected = reference.ssim(array(a), array(b) / largest)
        assert abs(value.item() - expected.mean()) <= VALUE[wide]
        (1000 * value).backward()
        assert a.grad.dtype == dtype
        exact = reference.ssim_gradient(array(a), array(b) / largest, np.full(expected.shape, 1000 / expected.size))
        assert_close(a.grad, exact, max(GRADIENT[wide], torch.finfo(dtype).eps))


def masks(device):
    """Means over the windows that a mask leaves something of, and a mask that leaves nothing."""
    x, y = pair(device)
    mask = torch.rand(43, 71, generator=torch.Generator().manual_seed(0)).to(device) > 0.4
    x = torch.where(mask, x, torch.nan)
    for reduction in ("mean", "sum", "image", "none"):
        a = x.clone().requires_grad_()
        value = fastssim.ssim(a, y, mask=mask, reduction=reduction)
        value.sum().backward()
        expected = reference.ssim(array(x), array(y), mask=array(mask))
        counted = reference.counted(SHAPE, array(mask), Gaussian(), "valid")
        exact = expected * counted
        by = counted.astype(np.float64)
        if reduction != "none":
            axes = (1, 2, 3) if reduction == "image" else (0, 1, 2, 3)
            count = np.ones(()) if reduction == "sum" else counted.sum(axes)
            exact = exact.sum(axes) / count
            by /= count.reshape(*count.shape, *[1] * (4 - count.ndim))
        bound = 2e-6 * (expected.size if reduction == "sum" else 1)
        assert np.abs(array(value) - exact).max() <= bound
        assert_close(a.grad, reference.ssim_gradient(array(x), array(y), by, mask=array(mask)), GRADIENT[x.dtype])
    a = x.clone().requires_grad_()
    value = fastssim.ssim(a, y, mask=torch.zeros_like(mask))
    value.backward()
    assert value.item() == 1
    assert not a.grad.any()


def losses(device):
    """L1 and SSIM in one pass, also under a mask; modules."""
    x, y = pair(device)
    for reduction in ("mean", "channel"):
        a = x.clone().requires_grad_()
        loss = fastssim.l1_ssim_loss(a, y, alpha=0.8, reduction=reduction)
        loss.sum().backward()
        axes = (0, 1, 2, 3) if reduction == "mean" else (2, 3)
        expected = reference.ssim(array(x), array(y))
        apart = array(x) - array(y)
        exact = 0.8 * np.abs(apart).mean(axes) + 0.2 * (1 - expected.mean(axes))
        assert np.abs(array(loss) - exact).max() <= 2e-6
        results = exact.size
        by = np.full(expected.shape, -0.2 * results / expected.size)
        gradient = reference.ssim_gradient(array(x), array(y), by) + 0.8 * np.sign(apart) * results / apart.size
        assert_close(a.grad, gradient, GRADIENT[x.dtype])
    mask = (x[:1, :1] > 0.3).float()
    weights = np.broadcast_to(array(mask), SHAPE)
    expected = reference.ssim(array(x), array(y), mask=array(mask))
    counted = reference.counted(SHAPE, array(mask), Gaussian(), "valid")
    exact = 0.8 * (weights * np.abs(array(x) - array(y))).sum() / weights.sum()
    exact += 0.2 * (1 - (expected * counted).sum() / counted.sum())
    assert abs(fastssim.l1_ssim_loss(x, y, mask=mask).item() - exact) <= 2e-6
    for module in (fastssim.SSIMLoss(), fastssim.L1SSIMLoss(alpha=0.5), fastssim.MSSSIMLoss(weights=(0.5, 0.5))):
        assert module(x, x).item() == 0


def ms_ssim(device):
    """Several scales of odd sizes, down to a few pixels, value and gradient to both images."""
    x, y = pair(device)
    for product, given in (
        ("channel", {"weights": (0.3, 0.7)}),
        ("image", {"weights": (0.3, 0.7)}),
        ("channel", {"weights": (0.1, 0.2, 0.3, 0.2, 0.2), "padding": "reflect"}),
        ("image", {"weights": (0.2, 0.3, 0.5), "padding": "zeros"}),
        ("image", {"weights": (1.0,), "window": Uniform(7)}),
    ):
        options = {**given, "product": product}
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        value = fastssim.ms_ssim(a, b, reduction="image", **options)
        value.sum().backward()
        exact = reference.ms_ssim(array(x), array(y), **options)
        assert np.abs(array(value) - (exact.mean(1) if product == "channel" else exact)).max() <= 2e-6
        ones = np.full(exact.shape, 0.5 if product == "channel" else 1.0)
        for gradient, by in ((a.grad, (x, y)), (b.grad, (y, x))):
            assert_close(gradient, reference.ms_ssim_gradient(*map(array, by), ones, **options), GRADIENT[x.dtype])
        alone = y.clone().requires_grad_()
        fastssim.ms_ssim(x, alone, reduction="image", **options).sum().backward()
        assert_close(alone.grad, reference.ms_ssim_gradient(array(y), array(x), ones, **options), GRADIENT[x.dtype])
        without = fastssim.ms_ssim(x, y, reduction="image", **options)
        assert np.abs(array(without) - array(value)).max() <= 1e-6


def equal_images(device):
    """Exactly 1 with a gradient of exactly 0."""
    x, _ = pair(device)
    for options in ({}, {"padding": "symmetric"}, {"mask": x > 0.2}):
        a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
        value = fastssim.ssim(a, b, **options)
        value.backward()
        assert value.item() == 1
        assert not a.grad.any()
        assert not b.grad.any()


def strides(device):
    """Channels last, transposed, cropped and expanded images are read in place, with the same bits."""
    x, y = pair(device)
    plain = fastssim.ssim(x, y, reduction="none")
    for a in (
        x.contiguous(memory_format=torch.channels_last),
        x.transpose(2, 3).contiguous().transpose(2, 3),
        torch.nn.functional.pad(x, (3, 5, 2, 1))[..., 2:-1, 3:-5],
    ):
        assert torch.equal(fastssim.ssim(a, y, reduction="none"), plain)
    one = fastssim.ssim(x[:1].expand(SHAPE), y, reduction="none")
    assert torch.equal(one, fastssim.ssim(x[:1].expand(SHAPE).contiguous(), y, reduction="none"))


def volumes(device):
    """Volumes: every reduction with the gradient to both, and the map."""
    x, y = pair(device, SOLID)
    options = {"window": SOLID_WINDOW, "dims": 3}
    expected = reference.ssim(array(x), array(y), **options)
    for reduction, kept in (("mean", 0), ("sum", 0), ("image", 1), ("channel", 2), ("none", 5)):
        axes = tuple(range(kept, 5))
        a, b = x.clone().requires_grad_(), y.clone().requires_grad_()
        value = fastssim.ssim(a, b, reduction=reduction, **options)
        exact = expected.sum(axes) if reduction == "sum" else expected.mean(axes)
        size = expected.size if reduction == "sum" else 5 if reduction == "none" else 1
        assert value.device == x.device
        assert np.abs(array(value) - exact).max() <= VALUE[x.dtype] * size
        assert np.abs(array(fastssim.ssim(x, y, reduction=reduction, **options)) - exact).max() <= VALUE[x.dtype] * size
        value.sum().backward()
        by = np.full(expected.shape, 1 if reduction == "sum" else exact.size / expected.size)
        for gradient, images in ((a.grad, (x, y)), (b.grad, (y, x))):
            assert_close(gradient, reference.ssim_gradient(*map(array, images), by, **options), GRADIENT[x.dtype])


def volume_paddings(device):
    """Every padding of volumes, by the image that comes second alone; a window that goes by the definition."""
    x, y = pair(device, SOLID)
    for padding in ("zeros", "reflect", "symmetric", "replicate"):
        options = {"window": SOLID_WINDOW, "dims": 3, "padding": padding}
        assert_mean_and_gradient(x, y, GRADIENT[x.dtype], by_second=True, **options)
    assert_mean_and_gradient(x, y, GRADIENT[x.dtype], window=Uniform((43, 3, 3)), padding="replicate", dims=3)


def volume_dtypes(device):
    """Volumes of every kind of dtype; gradients come in the volume's own, integers are fractions."""
    clean, other = pair(device, SOLID, torch.float64)
    for dtype, target in ((torch.float64, torch.float32), (torch.bfloat16, torch.uint8)):
        largest = {torch.uint8: 255}.get(target, 1)
        a = clean.to(dtype, copy=True).requires_grad_()
        b = (other * largest).round().to(target) if largest > 1 else other.to(target)
        value = fastssim.ssim(a, b, window=SOLID_WINDOW, dims=3)
        wide = torch.float64 if dtype == torch.float64 else torch.float32
        assert value.dtype == wide
        options = {"window": SOLID_WINDOW, "dims": 3}
        expected = reference.ssim(array(a), array(b) / largest, **options)
        assert abs(value.item() - expected.mean()) <= VALUE[wide]
        value.backward()
        assert a.grad.dtype == dtype
        by = np.full(expected.shape, 1 / expected.size)
        exact = reference.ssim_gradient(array(a), array(b) / largest, by, **options)
        assert_close(a.grad, exact, max(GRADIENT[wide], torch.finfo(dtype).eps))


def volume_losses(device):
    """L1 and SSIM of volumes, equal volumes, modules, any strides."""
    x, y = pair(device, SOLID)
    options = {"window": SOLID_WINDOW, "dims": 3}
    a = x.clone().requires_grad_()
    loss = fastssim.l1_ssim_loss(a, y, alpha=0.8, **options)
    loss.backward()
    expected = reference.ssim(array(x), array(y), **options)
    apart = array(x) - array(y)
    assert abs(loss.item() - 0.8 * np.abs(apart).mean() - 0.2 * (1 - expected.mean())) <= 2e-6
    by = np.full(expected.shape, -0.2 / expected.size)
    exact = reference.ssim_gradient(array(x), array(y), by, **options) + 0.8 * np.sign(apart) / apart.size
    assert_close(a.grad, exact, GRADIENT[x.dtype])
    a, b = x.clone().requires_grad_(), x.clone().requires_grad_()
    for module in (fastssim.SSIMLoss(**options), fastssim.L1SSIMLoss(alpha=0.5, **options)):
        value = module(a, b)
        value.backward()
        assert value.item() == 0
    assert not (a.grad + b.grad).any()  # of L1 the signs are 0, too
    plain = fastssim.ssim_map(x, y, **options)
    for image in (x.contiguous(memory_format=torch.channels_last_3d), x.transpose(2, 4).contiguous().transpose(2, 4)):
        assert torch.equal(fastssim.ssim_map(image, y, **options), plain)
    assert torch.equal(fastssim.ssim_map(x[0, 0], y[0, 0], **options), plain[0, 0])


def volume_drop_ins(device):
    """The drop-in modules take volumes wherever these lie."""
    x, y = pair(device, (1, 1, 12, 12, 13))
    eleven = {"dims": 3, "window": Gaussian()}
    for found, options in (
        (pytorch_msssim.ssim(x, y, data_range=1.0), {}),
        (fused_ssim.fused_ssim3d(x, y), {"padding": "zeros"}),
        (kornia.ssim3d(x, y, 11).mean(), {"padding": "reflect"}),
        (torchmetrics.structural_similarity_index_measure(x, y, data_range=1.0), {"padding": "reflect"}),
    ):
        assert found.device == x.device
        assert abs(found.item() - reference.ssim(array(x), array(y), **eleven, **options).mean()) <= 1e-6


def arrays(library, shape=(3, 43, 71), **options):
    """CuPy's arrays, or what stands for them: value and gradients of mean SSIM, without torch."""
    x, y = (array(image).astype(np.float32).reshape(shape) for image in pair("cpu", (1, *shape)))
    options = {**options, "padding": "reflect"}
    value, *gradients = ssim_and_gradient(library.asarray(x), library.asarray(y), **options)
    expected = reference.ssim(x[None], y[None], **options)
    assert value.shape == ()
    assert abs(float(value) - expected.mean()) <= VALUE[torch.float32]
    ones = np.full(expected.shape, 1 / expected.size)
    for gradient, by in zip(gradients, ((x, y), (y, x)), strict=True):
        assert gradient.shape == shape
        exact = reference.ssim_gradient(by[0][None], by[1][None], ones, **options)
        assert_close(torch.from_dlpack(gradient), exact[0], GRADIENT[torch.float32])


def hard_edges(device):
    """Beside edges float32 keeps its digits, also under a mask."""
    shown = np.arange(90) % 30 < 20
    for kind in EDGES:
        x, y = (torch.from_numpy(image).to(device) for image in edges(kind, 0.05))
        for options in ({"window": Gaussian()}, {"window": Uniform(7)}, {"mask": np.broadcast_to(shown, x.shape)}):
            given = {name: torch.tensor(value, device=device) for name, value in options.items() if name == "mask"}
            a = x.clone().requires_grad_()
            found = fastssim.ssim(a, y, reduction="none", **(options | given))
            assert np.abs(array(found) - reference.ssim(array(x), array(y), **options)).max() <= MAP[x.dtype]
            found.sum().backward()
            ones = np.ones(found.shape)
            assert_close(a.grad, reference.ssim_gradient(array(x), array(y), ones, **options), GRADIENT[x.dtype])


def training(device, dtype=torch.float32):
    """A step of gradient descent: forward, backward, optimiser; the loss falls."""
    torch.manual_seed(0)
    model = torch.nn.Conv2d(2, 2, 3, padding=1).to(device)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.05)
    x, y = pair(device)
    loss = fastssim.L1SSIMLoss()

    def step():
        optimiser.zero_grad(set_to_none=False)
        with torch.autocast(torch.device(device).type, dtype, enabled=dtype != torch.float32):
            value = loss(model(x), y)
        value.backward()
        optimiser.step()
        return value.detach()

    return model, step


def loss_falls(device):
    """Some steps of training bring the loss down, also under autocast."""
    for dtype in (torch.float32, torch.bfloat16):
        _, step = training(device, dtype)
        losses = [step().item() for _ in range(4)]
        assert losses == sorted(losses, reverse=True), losses


CHECKS = (
    reductions, maps, paddings, windows, unbiased, dtypes, masks, losses, ms_ssim, equal_images, strides, hard_edges,
    loss_falls,
    volumes, volume_paddings, volume_dtypes, volume_losses, volume_drop_ins,
)  # fmt: skip
