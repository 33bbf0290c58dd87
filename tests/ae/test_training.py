from __future__ import annotations

import csv
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from ae.config import TrainConfig
from ae.data import load_images, open_folder, split_good
from ae.files import write_json
from ae.run import load_run
from ae.segmentation import residual_map
from ae.training import _Training, keep_near, one_cycle, relative_squared_error, train


def logged(folder):
    """Epochs in all parts of a training's log."""
    rows = []
    for path in sorted(folder.glob("logs/csv/*/metrics.csv")):
        with path.open(newline="") as file:
            rows += [row for row in csv.DictReader(file) if row["held_out_loss"]]
    return [int(row["epoch"]) for row in rows]


def test_a_training_logs_and_is_reproducible(tiny_data, tiny_runs, tmp_path, tiny_config):
    assert logged(tiny_runs / "ssim") == [0, 1]
    assert list(tiny_runs.glob("ssim/logs/tensorboard/*/events*"))
    again = load_run(train(tiny_data, tmp_path / "again", tiny_config, progress=False))
    first = load_run(tiny_runs / "ssim")
    assert all(torch.equal(a, b) for a, b in zip(first.method.parameters(), again.method.parameters(), strict=True))
    assert first.threshold == again.threshold


@pytest.mark.parametrize(("device", "free", "moved"), [("cuda", 200, True), ("cuda", 199, False), ("cpu", 200, False)])
def test_images_lie_on_the_gpu_that_trains_where_it_has_room(monkeypatch, device, free, moved):
    asked, places = torch.device(device), []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (free, 400))
    keep_near(SimpleNamespace(nbytes=100, to=places.append), asked)
    assert places == [asked] * moved


def test_training_lowers_the_loss(tiny_data, tmp_path, tiny_config):
    config = replace(tiny_config, epochs=12, patches_per_epoch=32, method="l2", latent=32)
    run = load_run(train(tiny_data, tmp_path / "run", config, progress=False))
    untrained = load_run(train(tiny_data, tmp_path / "none", replace(config, epochs=1), progress=False))
    assert run.training["loss"] < 0.7 * untrained.training["loss"]


def test_the_threshold_marks_the_stated_share_of_good_pixels(tiny_data, tiny_runs):
    run = load_run(tiny_runs / "ssim")
    images = load_images(open_folder(tiny_data).train, channels=1, scale=1.0, smallest=128)
    _, held_out = split_good(images, run.config.held_out, run.config.seed, 128)
    residuals = np.concatenate([residual_map(run.method, i, run.config)[1].ravel() for i in held_out])
    assert (residuals > run.threshold).mean() == pytest.approx(run.config.false_positive_rate, rel=0.05)


def test_an_occupied_folder_is_refused(tiny_data, tiny_runs, tmp_path, tiny_config):
    with pytest.raises(ValueError, match="holds a training; resume it"):
        train(tiny_data, tiny_runs / "ssim", tiny_config, progress=False)
    with pytest.raises(ValueError, match="holds a finished training"):
        train(tiny_data, tiny_runs / "ssim", tiny_config, resume=True, progress=False)
    (tmp_path / "started.json").write_text(json.dumps({"method": "l2"}))
    with pytest.raises(ValueError, match="started with other options"):
        train(tiny_data, tmp_path, tiny_config, resume=True, progress=False)


def test_a_training_goes_on_with_its_own_images_alone(tiny_data, tmp_path, tiny_config):
    images = tmp_path / "images"
    shutil.copytree(tiny_data / "train" / "good", images)
    out = train(images, tmp_path / "run", tiny_config, progress=False)
    (out / "config.json").unlink()
    (out / "checkpoints" / "last.ckpt").unlink()
    first, *_, last = sorted(images.iterdir())
    content = first.read_bytes()
    first.write_bytes(last.read_bytes())
    with pytest.raises(ValueError, match=r"run was started with other images; give the same ones, or name another"):
        train(images, out, tiny_config, resume=True, progress=False)
    first.write_bytes(content)
    images = images.rename(tmp_path / "elsewhere")
    run = load_run(train(images, out, tiny_config, resume=True, progress=False))
    assert run.training["epochs"] == tiny_config.epochs


def test_a_checkpoint_of_another_training_is_not_gone_on_from(tiny_data, tiny_runs, tmp_path, tiny_config):
    other = train(tiny_data, tmp_path / "run", replace(tiny_config, latent=16, method="l2"), progress=False)
    for name in ("started.json", "config.json"):
        (other / name).unlink()
    for resume in (False, True):
        run = load_run(train(tiny_data, other, tiny_config, resume=resume, progress=False))
        assert run.threshold == load_run(tiny_runs / "ssim").threshold
        for name in ("started.json", "config.json"):
            (other / name).unlink()


def test_two_processes_do_not_train_in_one_folder(tiny_data, tmp_path, tiny_config):
    code = f"from ae.files import reserved\nwith reserved({str(tmp_path)!r}): print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        other.stdout.readline()
        with pytest.raises(ValueError, match=r"another process works in .*; wait for its end"):
            train(tiny_data, tmp_path, tiny_config, progress=False)
        other.kill()
    assert train(tiny_data, tmp_path, tiny_config, progress=False) == tmp_path


def test_a_damaged_record_of_the_options_is_named(tiny_data, tmp_path, tiny_config):
    for content in ("null", '{"latent": 8.5}', '{"latent": 0}', '{"colour": 1}'):
        (tmp_path / "started.json").write_text(content)
        with pytest.raises(ValueError, match=r"started\.json is damaged .*; restore it, or name another folder"):
            train(tiny_data, tmp_path, tiny_config, resume=True, progress=False)


class _Trap:
    """Unpickled, it would leave a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_a_damaged_checkpoint_is_named_and_not_unpickled(tiny_data, tmp_path, tiny_config):
    write_json(tmp_path / "started.json", asdict(tiny_config))
    checkpoint = tmp_path / "checkpoints" / "last.ckpt"
    checkpoint.parent.mkdir()
    torch.save({"a": torch.zeros(1000)}, checkpoint)
    whole = checkpoint.read_bytes()
    for content in (b"", b"hello", whole[:2000], pickle.dumps({"a": _Trap(tmp_path / "sprung")})):
        checkpoint.write_bytes(content)
        with pytest.raises(ValueError, match=r"last\.ckpt is damaged .*; remove it to begin anew"):
            train(tiny_data, tmp_path, tiny_config, resume=True)
    assert not (tmp_path / "sprung").exists()


def test_a_training_begun_before_an_option_was_there_is_resumed(tiny_data, tiny_runs, tmp_path, tiny_config):
    train(tiny_data, tmp_path, tiny_config, progress=False)
    (tmp_path / "config.json").unlink()
    started = json.loads((tmp_path / "started.json").read_text())
    assert started.pop("precision") == "float32"
    (tmp_path / "started.json").write_text(json.dumps(started))
    run = load_run(train(tiny_data, tmp_path, tiny_config, resume=True, progress=False))
    assert run.threshold == load_run(tiny_runs / "ssim").threshold


def test_a_time_budget_ends_training_early(tiny_data, tmp_path, tiny_config):
    config = replace(tiny_config, epochs=100_000, time_budget=1.0)
    run = load_run(train(tiny_data, tmp_path / "run", config, progress=False))
    assert run.training["epochs"] < 100_000
    assert run.training["seconds"] >= 1


def test_a_time_budget_leaves_the_least_epochs(tiny_data, tmp_path, tiny_config):
    config = replace(tiny_config, epochs=100_000, time_budget=1e-3, least_epochs=3)
    run = load_run(train(tiny_data, tmp_path / "run", config, progress=False))
    assert 3 <= run.training["epochs"] <= 4


def test_early_stopping_watches_held_out_patches(tiny_data, tmp_path, tiny_config):
    config = replace(tiny_config, epochs=500, patience=1, learning_rate=1e-12, schedule="constant")
    run = load_run(train(tiny_data, tmp_path / "run", config, progress=False))
    assert run.training["epochs"] < 50


def test_the_warm_up_minimises_the_squared_error_and_early_stopping_waits_for_its_end(tiny_data, tmp_path, tiny_config):
    config = replace(tiny_config, epochs=6, patience=1, learning_rate=1e-12, schedule="constant", warm_up=0.7)
    run = load_run(train(tiny_data, tmp_path / "run", config, progress=False))
    assert run.training["epochs"] == 6  # without a warm-up it stops after the second


def test_a_warm_training_step_returns_the_squared_error(tiny_config):
    module = _Training(tiny_config)
    module.log = lambda *_, **__: None
    batch = torch.rand(2, 1, 128, 128)
    cold = module.training_step(batch, 0).detach()
    module.warm = True
    warm = module.training_step(batch, 0)
    reconstruction = module.method.model(batch)
    assert cold == pytest.approx(module.method.distance(batch, reconstruction.contiguous()).item(), rel=1e-5)
    expected = ((batch - reconstruction) ** 2).mean() / batch.var(correction=0)
    assert warm.detach() == pytest.approx(expected.item(), rel=1e-4)
    warm.backward()
    assert all(parameter.grad is not None for parameter in module.parameters())


def test_a_constant_reconstruction_is_called_collapsed(tiny_data, tmp_path, tiny_config):
    run = load_run(train(tiny_data, tmp_path / "run", replace(tiny_config, learning_rate=1e-12), progress=False))
    assert run.training["collapsed"]  # untrained: worse than a constant


def test_a_relative_squared_error_of_equal_patches_is_zero():
    batch = torch.rand(2, 1, 8, 8)
    assert relative_squared_error(batch, batch) == 0
    assert relative_squared_error(torch.ones(2, 2), torch.ones(2, 2)) == 0


def test_a_diverging_training_is_stopped_and_keeps_no_such_weights(tiny_data, tmp_path, tiny_config):
    config = replace(tiny_config, learning_rate=1e30, gradient_clip=0.0, schedule="constant")
    with pytest.raises(RuntimeError, match="the training diverged: its loss is"):
        train(tiny_data, tmp_path / "run", config, progress=False)
    assert not list(tmp_path.glob("run/checkpoints/*"))


def test_a_training_killed_after_its_early_stop_trains_no_further(tiny_data, tmp_path, tiny_config):
    config = replace(tiny_config, epochs=500, patience=1, learning_rate=1e-12, schedule="constant")
    first = load_run(train(tiny_data, tmp_path / "run", config, progress=False))
    (tmp_path / "run" / "config.json").unlink()
    again = load_run(train(tiny_data, tmp_path / "run", config, resume=True, progress=False))
    assert again.training["epochs"] == first.training["epochs"] < 50


@pytest.mark.parametrize("method", ["ssim", "l2", "vae"])
def test_a_training_in_bfloat16_follows_one_in_float32(tiny_data, tmp_path, tiny_config, method):
    """Layers are rounded to 8 bits, losses and weights are not."""
    config = replace(tiny_config, method=method, learning_rate=2e-4, schedule="constant")
    exact = load_run(train(tiny_data, tmp_path / "exact", config, progress=False))
    run = load_run(train(tiny_data, tmp_path / "run", replace(config, precision="bfloat16"), progress=False))
    assert all(parameter.dtype == torch.float32 for parameter in run.method.parameters())
    assert run.training["loss"] != exact.training["loss"]
    assert run.training["loss"] == pytest.approx(exact.training["loss"], rel=0.02)


@pytest.mark.parametrize("method", ["ssim", "l2", "vae"])
def test_a_loss_is_float32_whatever_the_network_computes_in(tiny_config, method):
    module = _Training(replace(tiny_config, method=method))
    batch = torch.rand(2, 1, 128, 128)
    with torch.autocast("cpu", torch.bfloat16):
        assert module.method.reconstruct(batch).dtype == torch.float32
        assert module.method.loss(batch).dtype == torch.float32


def test_codes_that_are_averaged_over_are_decoded_to_float32(tiny_config):
    method = _Training(replace(tiny_config, method="vae", vae_samples=2)).method.eval()
    with torch.autocast("cpu", torch.bfloat16):
        assert method.reconstruct(torch.rand(2, 1, 128, 128)).dtype == torch.float32


def test_a_training_killed_at_any_point_ends_with_the_same_weights(tiny_data, tmp_path):
    """All that is random or depends on the step takes part: noise, erased squares, codes, flips, rate, warm-up."""
    options = {
        "method": "vae", "latent": 8, "epochs": 12, "patches_per_epoch": 8, "batch_size": 4, "held_out": 0.34,
        "schedule": "one-cycle", "warm_up": 0.4, "noise": 0.1, "erased": 0.2, "augment": "flips", "patience": 3,
    }  # fmt: skip
    whole = load_run(train(tiny_data, tmp_path / "whole", TrainConfig(**options), progress=False))
    program = f"from ae import TrainConfig, train; train({str(tiny_data)!r}, {str(tmp_path / 'run')!r},"
    program += f" TrainConfig(**{options!r}), resume=True, progress=False)"
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root), "OMP_NUM_THREADS": str(torch.get_num_threads())}
    process = subprocess.Popen([sys.executable, "-c", program], env=environment)
    checkpoint = tmp_path / "run" / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 90
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(np.random.default_rng().uniform(0, 0.3))  # anywhere in the epochs that follow
    process.kill()
    assert process.wait(60) == -signal.SIGKILL
    assert not (tmp_path / "run" / "config.json").exists()
    resumed = load_run(train(tiny_data, tmp_path / "run", TrainConfig(**options), resume=True, progress=False))
    assert resumed.training["patches"] == whole.training["patches"]
    for name, weights in whole.method.model.state_dict().items():
        assert torch.equal(resumed.method.model.state_dict()[name], weights), name
    assert resumed.threshold == whole.threshold


def test_an_interrupted_training_says_how_to_resume_from_its_last_checkpoint(tiny_data, tmp_path):
    out = tmp_path / "run"
    command = [sys.executable, "-m", "ae", "train", str(tiny_data), "--out", str(out), "--time-budget", "9s"]
    command += ["--latent", "8", "--held-out", "0.34"]
    command += ["--batch-size", "4", "--patches-per-epoch", "8", "--epochs", "100000"]
    root = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": str(root)}
    process = subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),  # a job in the background ignores it
    )
    checkpoint = out / "checkpoints" / "last.ckpt"
    deadline = time.monotonic() + 90
    while not checkpoint.exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)  # until there is something to resume
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors.decode()
    assert b"--resume" in errors
    before = len(logged(out))
    done = subprocess.run([*command, "--resume"], env=environment, capture_output=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr.decode()
    epochs = logged(out)
    assert epochs == sorted(epochs)
    assert load_run(out).training["epochs"] > before > 0


def test_one_cycle_rises_and_falls():
    rates = [one_cycle(share) for share in np.linspace(0, 1, 101)]
    assert max(rates) == rates[30] == 1
    assert rates[0] == pytest.approx(0.04)
    assert rates[-1] == pytest.approx(0.0004)
    assert (np.diff(rates[:31]) > 0).all()
    assert (np.diff(rates[30:]) < 0).all()
