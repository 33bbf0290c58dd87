from __future__ import annotations

import json
import shutil

import pytest
import torch

from ae.config import TrainConfig, config_from, preset
from ae.run import load_run


def test_a_run_folder_holds_all_a_model_needs(tiny_runs):
    run = load_run(tiny_runs / "ssim")
    assert run.config.method == run.method.name == "ssim"
    assert run.config.latent == 8
    assert run.threshold > 0
    assert run.training["patches"] == 16
    again = load_run(tiny_runs / "ssim")
    patch = torch.rand(1, 1, 128, 128)
    assert torch.equal(run.method.model(patch), again.method.model(patch))


@pytest.fixture
def copied(tiny_runs, tmp_path):
    return shutil.copytree(tiny_runs / "ssim", tmp_path / "run")


def test_missing_files_are_named(copied):
    (copied / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        load_run(copied)
    (copied / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json is missing"):
        load_run(copied)
    with pytest.raises(ValueError, match="is no folder"):
        load_run(copied / "elsewhere")


def test_damaged_weights_are_named(copied):
    whole = (copied / "model.safetensors").read_bytes()
    for content in (whole[:1000], b"", b"x" * 100):
        (copied / "model.safetensors").write_bytes(content)
        with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
            load_run(copied)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": 99}, "has format 99"),
        ({"threshold": None}, "is damaged"),
        ({"threshold": "high"}, r"config\.json is damaged .*could not convert"),
        ({"threshold": float("nan")}, "threshold is nan"),
        ({"config": {"latent": 8.5}}, "latent is 8.5; give an int"),
        ({"config": {"test_flips": "no"}}, "test_flips is 'no'; give True or False"),
        ({"config": {"latent": 16}}, "of another model"),
        ({"config": {"depth": 3}}, r'unknown names \["depth"\]'),
        ({"config": {"method": "gan"}}, "method is 'gan'"),
        ({"config": {"normalise": "contrast"}}, "contrast is missing"),
        ({"config": {"normalise": "level"}}, "level is missing"),
    ],
)
def test_a_changed_configuration_is_noticed(copied, change, words):
    content = json.loads((copied / "config.json").read_text())
    for name, value in change.items():
        content[name] = {**content[name], **value} if isinstance(value, dict) else value
    (copied / "config.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=words):
        load_run(copied)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "gan"}, "method is 'gan'; give one of 'ssim', 'l2'"),
        ({"learning_rate": float("inf")}, "learning_rate is inf; it must be finite"),
        ({"smoothing": float("nan")}, "smoothing is nan; it must be finite"),
        ({"channels": 2}, "channels is 2"),
        ({"epochs": 0}, "epochs is 0; it must be at least 1"),
        ({"seed": -1}, "seed is -1"),
        ({"seed": 1 << 32}, r"seed is 4294967296; it must be below 2 \*\* 32"),
        ({"learning_rate": 0.0}, r"learning_rate is 0\.0"),
        ({"held_out": 1.0}, "held_out is 1.0; it must be at least 0 and below 1"),
        ({"false_positive_rate": 0}, "false_positive_rate is 0; it must lie between 0 and 1"),
        ({"window_size": 4}, "window_size is 4; it must be odd"),
        ({"smoothing": 1001.0}, "smoothing is 1001.0; it must lie between 0 and 1000 pixels"),
        ({"opening": 129}, "opening is 129; it must lie between 0 and 128 pixels"),
        ({"loss_scales": 5}, "loss_scales is 5; it must lie between 1 and 4"),
        ({"loss_scales": 4, "window_size": 17}, "window_size is 17, more than the 16 pixels of a patch"),
        ({"constants": "both"}, "constants is 'both'; give one of 'squared', 'literal'"),
        ({"stride": 200}, "would leave gaps"),
        ({"batch_size": 20_000}, "more than the 10000 patches"),
        ({"time_budget": 0}, "time_budget is 0"),
        ({"schedule": "cosine"}, "schedule is 'cosine'"),
    ],
)
def test_values_that_make_no_sense_are_refused(options, words):
    with pytest.raises(ValueError, match=words):
        TrainConfig(**options)


def test_a_configuration_survives_json():
    config = preset("paper", method="l2", time_budget=60.0)
    assert config_from(json.loads(json.dumps(config.__dict__))) == config


def test_the_paper_s_protocol():
    config = preset("paper")
    assert (config.epochs, config.patches_per_epoch, config.latent) == (200, 10_000, 100)
    assert (config.learning_rate, config.weight_decay, config.schedule) == (2e-4, 1e-5, "constant")
    assert (config.window_size, config.stride, config.opening, config.augment) == (11, 30, 4, "none")
    assert (config.patience, config.held_out, config.warm_up, config.gradient_clip) == (0, 0, 0, 0)
    assert preset("paper", latent=500, constants="literal").constants == "literal"
    with pytest.raises(ValueError, match="preset is 'good'; give one of 'paper', 'best'"):
        preset("good")
