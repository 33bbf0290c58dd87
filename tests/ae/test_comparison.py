from __future__ import annotations

import re

import pytest

from ae.comparison import compare
from ae.reporting import report


@pytest.fixture(scope="module")
def comparison(tiny_data, tiny_config, tmp_path_factory):
    return compare(
        tiny_data, tmp_path_factory.mktemp("comparison"), config=tiny_config, progress=False, note="<made up>"
    )


def test_methods_are_trained_and_measured_side_by_side(comparison):
    assert list(comparison.results) == ["ssim", "l2"]
    assert all(0 <= result["all"]["pixel_roc_auc"] <= 1 for result in comparison.results.values())


def test_the_report_stands_alone(comparison):
    page = comparison.report.read_text()
    assert not re.search(r"""(?:src|href)=["'](?!data:|#)""", page)
    assert "&lt;made up&gt;" in page
    assert page.count('alt="reconstruction by ssim"') == page.count('alt="residual by l2"') == 3
    assert page.count("<svg") == 4
    for words in ("dent", "pixel ROC AUC", "image and truth", "loss"):
        assert words in page


def test_a_comparison_resumes_without_training_again(comparison, tiny_data, tiny_config):
    folder = comparison.report.parent
    before = (folder / "l2" / "run" / "model.safetensors").stat().st_mtime_ns
    again = compare(tiny_data, folder, config=tiny_config, resume=True, progress=False)
    assert (folder / "l2" / "run" / "model.safetensors").stat().st_mtime_ns == before
    assert again.results["ssim"]["all"] == comparison.results["ssim"]["all"]
    with pytest.raises(ValueError, match="holds a training"):
        compare(tiny_data, folder, config=tiny_config, progress=False)


def test_one_evaluation_has_a_report_too(comparison):
    path = report(comparison.report.parent / "ssim" / "evaluation")
    assert path.name == "report.html"
    assert "residual by ssim" in path.read_text()


def test_what_is_missing_is_named(tmp_path, tiny_data, tiny_config):
    with pytest.raises(ValueError, match="holds no evaluation"):
        report(tmp_path)
    with pytest.raises(ValueError, match="no test images to compare on"):
        compare(tiny_data / "train" / "good", tmp_path, config=tiny_config)
    with pytest.raises(ValueError, match="method is 'gan'"):
        compare(tiny_data, tmp_path, ["gan"], tiny_config)
