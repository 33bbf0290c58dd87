"""The command line as a person uses it: in a process of its own."""

from __future__ import annotations

import json
import os
import resource
import shutil
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
import torch

from ae import cli
from ae.cli import OPTIONS
from ae.config import TrainConfig, preset
from ae.run import load_run

ROOT = Path(__file__).resolve().parents[2]


def ae(*words, cwd=None, largest_file=None):
    def limit():
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest_file, largest_file))

    environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100"}
    command = [sys.executable, "-m", "ae", *map(str, words)]
    before = None if largest_file is None else limit
    return subprocess.run(
        command, capture_output=True, text=True, env=environment, cwd=cwd, check=False, preexec_fn=before
    )


def test_every_option_of_a_training_is_on_the_command_line():
    assert OPTIONS.keys() == {field.name for field in fields(TrainConfig)}
    done = ae("train", "--help")
    assert done.returncode == 0
    for name in OPTIONS:
        assert f"--{name.replace('_', '-')}" in done.stdout


def test_segment_evaluate_and_report(tiny_data, tiny_runs, tmp_path):
    done = ae("segment", tiny_runs / "ssim", tiny_data / "test" / "dent" / "0.png", "--out", tmp_path / "s")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == str(tmp_path / "s" / "0_overlay.png")
    done = ae("evaluate", tiny_runs / "ssim", tiny_data, "--out", tmp_path / "e")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:2] == ["Over", "all"]
    assert not done.stdout.startswith("\n")
    assert "pixel ROC AUC" in done.stdout
    done = ae("report", tmp_path / "e")
    assert done.stdout.strip() == f"report: {tmp_path / 'e' / 'report.html'}"


def test_train_writes_a_run_folder_and_options_count_more_than_the_preset(tiny_data, tmp_path):
    done = ae(
        "train", tiny_data, "--out", tmp_path / "run", "--epochs", 1, "--patches-per-epoch", 8, "--batch-size", 4,
        "--preset", "paper", "--latent", 8, "--held-out", 0.34, "--time-budget", "10m",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"run folder: {tmp_path / 'run'}" in done.stdout
    assert "has its threshold from 1 held-out image, and good ones may differ" in done.stderr
    config = load_run(tmp_path / "run").config
    options = {"epochs": 1, "patches_per_epoch": 8, "batch_size": 4, "latent": 8, "held_out": 0.34, "time_budget": 600}
    assert config == preset("paper", **options)


@pytest.mark.parametrize(
    ("held_out", "source"),
    [(0, "images that were fitted"), (1, "1 held-out image"), (2, "2 held-out images"), (3, None)],
)
def test_a_threshold_of_few_images_is_said(held_out, source, tmp_path, capsys):
    training = {"collapsed": False, "images": {"fit": 4, "held_out": held_out}}
    (tmp_path / "config.json").write_text(json.dumps({"training": training}))
    cli._warn_of_few(tmp_path)
    told = f"{tmp_path} has its threshold from {source}, and good ones may differ; if masks show too much, ae calibrate"
    said = capsys.readouterr().err
    assert (told in said) if source else not said


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["train", "nowhere", "--out", "run"], "nowhere is no folder; check the path"),
        (["train", ".", "--out", "run"], "holds no image"),
        (["train", ".", "--out", "run", "--stride", "500"], "stride is 500"),
        (["segment", "nowhere", "a.png", "--out", "out"], "nowhere is no folder; give one that `ae train` wrote"),
        (["train", ".", "--out", "run", "--preset", "worst"], "preset is 'worst'; give one of 'paper', 'best'"),
        (["train", ".", "--out", "run", "--time-budget", "10"], "the time '10' is none"),
        (["results", "."], "rows holds no row"),
        (["experiment", ".", "--out", "out", "--seeds", "0,x"], "seeds: x is no whole number"),
        (["report", "."], "holds no evaluation"),
        (["compare", ".", "--out", "run", "--methods", "ssim,gan"], "holds no image"),
    ],
)
def test_a_mistake_is_one_clear_line(words, says, tmp_path):
    done = ae(*words, cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("ae: ")
    assert says in lines[0]
    assert list(tmp_path.iterdir()) == []


def test_what_is_printed_is_what_is_named(tiny_data, tiny_runs, tmp_path):
    out = tmp_path / "a[red]:x:[" / "b]"
    done = ae("segment", tiny_runs / "l2", tiny_data / "test" / "dent" / "0.png", "--out", out)
    assert done.returncode == 0, done.stderr
    assert f"regions: {out / 'regions.csv'}, {out / 'regions.json'}" in done.stdout
    done = ae("segment", tiny_runs / "l2", out / "0[/x].png", "--out", out)
    assert f"no file matches {out / '0[/x].png'}; check the pattern" in done.stderr


def test_a_name_that_the_output_cannot_encode_is_printed_all_the_same(tiny_data, tiny_runs, tmp_path, monkeypatch):
    monkeypatch.setenv("PYTHONIOENCODING", "ascii")
    shutil.copy(tiny_data / "test" / "dent" / "0.png", tmp_path / "日.png")
    done = ae("segment", tiny_runs / "l2", tmp_path / "日.png", "--out", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == f"{tmp_path / 'out'}/\\u65e5_overlay.png"


def test_a_place_that_is_taken_is_no_lack_of_space(tiny_runs, tmp_path):
    (tmp_path / "taken").write_text("")
    done = ae("segment", tiny_runs / "l2", "a.png", "--out", tmp_path / "taken")
    assert done.returncode == 2
    assert done.stderr.strip() == f"ae: {tmp_path / 'taken'}: File exists; check the path"


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_a_gpu_that_is_not_there_is_one_clear_line(tiny_runs, tmp_path):
    done = ae("segment", tiny_runs / "l2", "a.png", "--out", tmp_path, "--device", "cuda")
    assert done.returncode == 2
    assert len(done.stderr.strip().splitlines()) == 1
    assert "finds no GPU; leave it out" in done.stderr


def test_calibrate_keeps_what_is_not_given(tiny_data, tiny_runs, tmp_path):
    run = shutil.copytree(tiny_runs / "l2", tmp_path / "run")
    first = ("--threshold-rule", "region", "--minimum-area", 30, "--false-positive-rate", 0.2)
    assert ae("calibrate", run, tiny_data, *first).returncode == 0
    assert ae("calibrate", run, tiny_data, "--minimum-area", 40).returncode == 0
    config = load_run(run).config
    assert (config.threshold_rule, config.minimum_area, config.false_positive_rate) == ("region", 40, 0.2)


def test_a_file_that_cannot_be_written_leaves_nothing_half_written(tiny_data, tiny_runs, tmp_path):
    image = tiny_data / "test" / "dent" / "0.png"
    done = ae("segment", tiny_runs / "ssim", image, "--out", tmp_path, largest_file=20_000)
    assert done.returncode == 2
    assert done.stderr.strip().splitlines() == [done.stderr.strip()]
    assert "0_residual.tiff" in done.stderr
    assert "File too large; free space" in done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["regions.csv", "regions.json"]


def test_a_checkpoint_that_cannot_be_written_says_why(tiny_data, tmp_path):
    options = ("--epochs", 1, "--patches-per-epoch", 8, "--batch-size", 4, "--latent", 8, "--held-out", 0.34)
    done = ae("train", tiny_data, "--out", tmp_path, *options, largest_file=100_000)
    assert done.returncode == 2
    path = tmp_path / "checkpoints" / "last.ckpt"
    assert done.stderr.splitlines()[-1] == f"ae: {path}: File too large; free space or check the permissions"
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("words", [["bogus"], ["train"], ["train", ".", "--out", "x", "--epochs", "many"]])
def test_usage_errors_show_no_traceback(words, tmp_path):
    done = ae(*words, cwd=tmp_path)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr
    assert "Error" in done.stderr


def test_help_does_not_load_torch():
    program = "import sys, ae.cli; sys.exit('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    assert subprocess.run([sys.executable, "-c", program], env=environment, check=False).returncode == 0
