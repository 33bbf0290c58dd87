from __future__ import annotations

import json
import sys
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from ae.calibration import recalibrate
from ae.config import TrainConfig
from ae.data import open_folder
from ae.exporting import export
from ae.methods import make_method
from ae.run import Run, load_run, save_run


def test_onnxruntime_reconstructs_what_torch_does(tmp_path):
    pytest.importorskip("onnx")
    runtime = pytest.importorskip("onnxruntime")
    base = TrainConfig(latent=8, stride=30)
    for config in (base, replace(base, method="vae", output="sigmoid"), replace(base, method="l2", channels=3)):
        torch.manual_seed(0)
        method = make_method(config).eval()
        save_run(Run(tmp_path / config.method, config, method, 0.25, {}))
        path = export(tmp_path / config.method, tmp_path / f"{config.method}.onnx")
        session = runtime.InferenceSession(path, providers=["CPUExecutionProvider"])
        tiles = torch.rand(3, config.channels, 128, 128)
        (found,) = session.run(["reconstruction"], {"tiles": tiles.numpy()})
        with torch.inference_mode():
            expected = method.reconstruct(tiles).numpy()
        np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
        told = session.get_modelmeta().custom_metadata_map
        assert told == {"method": config.method, "scale": "1.0", "stride": "30", "threshold": "0.25"}


def test_without_the_package_it_says_how_to_get_it(tiny_runs, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match="pip install"):
        export(tiny_runs / "l2", tmp_path / "a.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_description_holds_all_that_a_score_is_made_by(tiny_data, tiny_runs, tmp_path):
    onnx = pytest.importorskip("onnx")
    run = recalibrate(load_run(tiny_runs / "ssim"), open_folder(tiny_data), normalise="contrast", smoothing=2.0)
    save_run(replace(run, folder=tmp_path / "run"))
    told = json.loads(onnx.load(export(tmp_path / "run", tmp_path / "a.onnx")).doc_string)
    assert told == {"config": asdict(run.config), "contrast": json.loads(json.dumps(asdict(run.contrast)))}
    levelled = recalibrate(run, open_folder(tiny_data), normalise="level")
    save_run(replace(levelled, folder=tmp_path / "run"))
    told = json.loads(onnx.load(export(tmp_path / "run", tmp_path / "a.onnx")).doc_string)
    assert told == {"config": asdict(levelled.config), "contrast": None, "level": asdict(levelled.level)}
