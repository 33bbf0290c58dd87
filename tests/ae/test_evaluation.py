from __future__ import annotations

import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from rich.console import Console

from ae.evaluation import MEASURES, classes_table, evaluate, metrics_table
from ae.images import read_image, read_mask, write_png
from ae.metrics import measure
from ae.segmentation import Segmenter


def test_measures_are_those_of_the_segmenter_s_maps(tiny_data, tiny_runs, tmp_path):
    result = evaluate(tiny_runs / "ssim", tiny_data, tmp_path)
    assert json.loads((tmp_path / "metrics.json").read_text()) == result
    segmenter = Segmenter.load(tiny_runs / "ssim")
    residuals, masks = [], []
    for label, stem in (("dent", 0), ("dent", 1), ("good", 0)):
        path = tiny_data / "test" / label / f"{stem}.png"
        residuals.append(segmenter(path).residual)
        truth = tiny_data / "ground_truth" / label / f"{stem}_mask.png"
        shape = residuals[-1].shape
        masks.append(read_mask(truth, shape) if label == "dent" else np.zeros(shape, bool))
    expected = measure(residuals, masks)
    assert {name: result["all"][name] for name in expected} == expected
    assert result["classes"].keys() == {"dent"}
    assert result["all"]["images"] == 3
    assert (read_image(tmp_path / "images" / "dent" / "0_truth.png")[0] > 0.5).sum() == masks[0].sum()
    assert [sample["stem"] for sample in result["samples"]] == ["0", "1", "0"]


def test_the_table_shows_methods_side_by_side(tiny_data, tiny_runs, tmp_path):
    results = {name: evaluate(tiny_runs / name, tiny_data, tmp_path / name) for name in ("ssim", "l2")}
    file = io.StringIO()
    Console(file=file, width=100).print(metrics_table(results))
    for word in ("ssim", "l2", "pixel ROC AUC", "PRO", f"{results['l2']['all']['pro']:.3f}"):
        assert word in file.getvalue()
    assert f"{results['l2']['all']['best_f1_threshold']:.3f}" in file.getvalue()
    classes = io.StringIO()
    Console(file=classes, width=160).print(classes_table(results["l2"]))
    assert f"{results['l2']['classes']['dent']['pro']:.3f}" in classes.getvalue()


def test_a_gpu_that_is_not_there_is_named(tiny_data, tiny_runs, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ValueError, match=r"device is 'cuda', but torch .* finds no GPU"):
        evaluate(tiny_runs / "l2", tiny_data, tmp_path, device="cuda")
    with pytest.raises(ValueError, match="device is 'gpu'; give cpu, cuda or cuda:N"):
        evaluate(tiny_runs / "l2", tiny_data, tmp_path, device="gpu")


@pytest.mark.parametrize("device", ["meta", "xpu", "mps", "privateuseone"])
def test_a_device_that_cannot_compute_is_named(tiny_runs, device):
    if device in {"xpu", "mps"} and getattr(torch, device).is_available():
        pytest.skip("it can")
    with pytest.raises(ValueError, match=rf"device is '{device}', on which torch cannot compute here \(.+\); give cpu"):
        Segmenter.load(tiny_runs / "l2", device)


def test_names_and_figures_are_whole_in_a_narrow_table():
    measures = dict.fromkeys(MEASURES, 0.125) | {"best_f1_threshold": 0.125}
    names = ["contamination_by_oil", "contamination_by_oil_and_dust"]
    result = {"method": "ssim", "classes": dict.fromkeys(names, measures)}
    for table, width in ((classes_table(result), 80), (classes_table(result), 50)):
        file = io.StringIO()
        Console(file=file, width=width).print(table)
        assert file.getvalue().count("0.125") == 10
        rows = [re.split("[│|]", line) for line in file.getvalue().splitlines() if line.startswith(("│", "|"))]
        assert "".join(row[1].strip() for row in rows) == "".join(names)


def test_measures_of_before_do_not_stand_beside_new_pictures(tiny_data, tiny_runs, tmp_path):
    def stop(*_):
        raise KeyboardInterrupt

    for out in (tmp_path / "a", tmp_path / "b"):
        evaluate(tiny_runs / "l2", tiny_data, out)
    with pytest.raises(KeyboardInterrupt):
        evaluate(tiny_runs / "ssim", tiny_data, tmp_path / "a", progress=stop)
    assert not (tmp_path / "a" / "metrics.json").exists()
    with pytest.raises(ValueError, match="has no test images"):  # before a picture is written
        evaluate(tiny_runs / "ssim", tiny_data / "train" / "good", tmp_path / "b")
    assert (tmp_path / "b" / "metrics.json").exists()


def test_data_without_test_images_is_refused(tiny_data, tiny_runs, tmp_path):
    with pytest.raises(ValueError, match="has no test images"):
        evaluate(tiny_runs / "ssim", tiny_data / "train" / "good", tmp_path)


def test_two_test_images_of_one_name_are_refused(tiny_data, tiny_runs, tmp_path):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    shutil.copy(data / "test" / "dent" / "0.png", data / "test" / "dent" / "0.jpg")
    with pytest.raises(ValueError, match=r"dent holds 2 images named 0; .* rename one"):
        evaluate(tiny_runs / "ssim", data, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_defect_s_mask_that_marks_nothing_is_refused(tiny_data, tiny_runs, tmp_path):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    write_png(data / "ground_truth" / "dent" / "1_mask.png", np.zeros((150, 140), np.uint8))
    with pytest.raises(ValueError, match=r"1_mask\.png marks nothing, but .*1\.png is no good image"):
        evaluate(tiny_runs / "l2", data, tmp_path / "out")


def test_the_run_is_found_from_any_folder(tiny_data, tiny_runs, tmp_path, monkeypatch):
    monkeypatch.chdir(tiny_runs)
    result = evaluate("l2", tiny_data, tmp_path)
    monkeypatch.chdir(tmp_path)
    assert Path(result["run"]).samefile(tiny_runs / "l2")
