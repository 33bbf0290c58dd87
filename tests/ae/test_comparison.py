from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import replace
from urllib.parse import unquote

import pytest
from PIL import Image

from ae.comparison import compare
from ae.evaluation import evaluate
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
    with pytest.raises(ValueError, match=r"l2.run was trained with other options"):
        compare(tiny_data, folder, ["vae", "l2"], replace(tiny_config, epochs=3), resume=True, progress=False)
    assert not (folder / "vae").exists()


def test_one_evaluation_has_a_report_too(comparison):
    path = report(comparison.report.parent / "ssim" / "evaluation")
    assert path.name == "report.html"
    assert "residual by ssim" in path.read_text()


def test_evaluations_of_one_method_go_by_their_folders(comparison, tmp_path):
    for name in ("before", "after"):
        shutil.copytree(comparison.report.parent / "l2" / "evaluation", tmp_path / name)
    page = report(tmp_path).read_text()
    assert page.index("residual by after") < page.index("residual by before")
    metrics = json.loads((tmp_path / "after" / "metrics.json").read_text())
    for samples in (metrics["samples"][1:], metrics["samples"][::-1]):
        (tmp_path / "after" / "metrics.json").write_text(json.dumps({**metrics, "samples": samples}))
        with pytest.raises(ValueError, match="evaluations of different test images"):
            report(tmp_path)
    for content in ("{}", "[]"):
        (tmp_path / "after" / "metrics.json").write_text(content)
        with pytest.raises(ValueError, match=r"metrics\.json is damaged or no evaluation"):
            report(tmp_path)


def test_good_test_images_alone_have_a_report(tiny_data, tiny_runs, tmp_path):
    name = "50% <b> & 'two' #1"
    for place in ("train/good/0.png", "test/good/0.png"):
        (tmp_path / "data" / place).parent.mkdir(parents=True)
        shutil.copy(tiny_data / place, (tmp_path / "data" / place).with_stem(name))
    evaluate(tiny_runs / "l2", tmp_path / "data", tmp_path)
    page = report(tmp_path).read_text()
    assert "<td>at the threshold: defect pixels found</td><td>–</td>" in page
    assert 'href="#view-good-50%25%20%3Cb%3E%20%26%20%27two%27%20%231"' in page
    assert "<b>" not in page


def test_a_damaged_or_missing_picture_is_named(comparison, tmp_path):
    folder = shutil.copytree(comparison.report.parent / "l2" / "evaluation", tmp_path / "evaluation")
    for name, content in (("0_residual.tiff", b"II*\0none"), ("0_residual.tiff", None), ("0_mask.png", b"none")):
        path = folder / "images" / "dent" / name
        whole = path.read_bytes()
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ValueError, match=rf"{re.escape(name)} .*, or evaluate again"):
            report(folder)
        path.write_bytes(whole)


@pytest.mark.parametrize("content", [b"epoch,held_out_loss\n0,much\n", b"held_out_loss\n0.5\n", b"\xff\xfe\n"])
def test_a_damaged_log_is_named(comparison, tmp_path, content):
    folder = shutil.copytree(comparison.report.parent, tmp_path / "comparison") / "l2"
    metrics = json.loads((folder / "evaluation" / "metrics.json").read_text())
    (folder / "evaluation" / "metrics.json").write_text(json.dumps({**metrics, "run": str(folder / "run")}))
    (log,) = (folder / "run").glob("logs/csv/*/metrics.csv")
    log.write_bytes(content)
    with pytest.raises(ValueError, match=rf"{re.escape(str(log))} is damaged .*; restore it or remove it"):
        report(folder / "evaluation")


def test_pictures_may_be_of_any_size(comparison, monkeypatch, recwarn):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert "residual by l2" in report(comparison.report.parent / "l2" / "evaluation").read_text()
    assert not recwarn


def test_the_table_of_all_images_is_sorted_by_keys_too(comparison):
    (head,) = re.findall(r'<table class="numbers sortable">\s*<thead>(.*?)</thead>', comparison.report.read_text())
    assert head.count("<th>") == head.count("<th><button>") == 6


def test_methods_are_given_and_given_once(comparison, tiny_data, tiny_config, tmp_path):
    for methods, words in (([], "methods are none"), (["l2", "ssim", "l2"], "methods are l2, ssim, l2")):
        with pytest.raises(ValueError, match=f"{words}; give one or several, each once"):
            compare(tiny_data, tmp_path / "out", methods, tiny_config)
    assert not (tmp_path / "out").exists()
    folder = shutil.copytree(comparison.report.parent, tmp_path / "copy")
    (folder / "l2" / "run" / "config.json").write_text("{}")
    with pytest.raises(ValueError, match=r"config\.json is damaged"):
        compare(tiny_data, folder, ["l2"], tiny_config, resume=True, progress=False)


def test_what_is_missing_is_named(tmp_path, tiny_data, tiny_config):
    with pytest.raises(ValueError, match="holds no evaluation"):
        report(tmp_path)
    with pytest.raises(ValueError, match="no test images to compare on"):
        compare(tiny_data / "train" / "good", tmp_path, config=tiny_config)
    with pytest.raises(ValueError, match="method is 'gan'"):
        compare(tiny_data, tmp_path, ["gan"], tiny_config)


def test_a_comparison_goes_on_with_its_own_images_alone(comparison, tiny_data, tiny_config, tmp_path):
    folder = shutil.copytree(comparison.report.parent, tmp_path / "comparison")
    data = shutil.copytree(tiny_data, tmp_path / "data")
    first, second, _ = sorted((data / "train" / "good").iterdir())
    shutil.copy(second, first)
    with pytest.raises(ValueError, match=r"ssim.run was trained with other images; give the same ones"):
        compare(data, folder, config=tiny_config, resume=True, progress=False)


def test_what_the_last_method_lacks_is_said_before_the_first_is_trained(tiny_data, tiny_config, tmp_path):
    said = []
    config = replace(tiny_config, feature_weights=str(tmp_path / "none.pth"))
    with pytest.raises(ValueError, match=r"none\.pth does not exist"):
        compare(tiny_data, tmp_path / "out", ["ssim", "fm"], config, announce=said.append)
    assert said == []


def test_the_heading_names_the_data_that_was_measured(tiny_data, tiny_runs, tmp_path):
    data = shutil.copytree(tiny_data, tmp_path / "other & more")
    evaluate(tiny_runs / "l2", data, tmp_path / "evaluation")
    assert "Defect segmentation: other &amp; more" in report(tmp_path / "evaluation").read_text()


def test_every_image_has_pictures_of_its_own(tiny_data, tiny_runs, tmp_path):
    for label, stem in (("a", "b-c"), ("a-b", "c")):
        for kind, source in (("test", "0.png"), ("ground_truth", "0_mask.png")):
            place = tmp_path / "data" / kind / label / source.replace("0", stem)
            place.parent.mkdir(parents=True)
            shutil.copy(tiny_data / kind / "dent" / source, place)
    shutil.copytree(tiny_data / "train", tmp_path / "data" / "train")
    evaluate(tiny_runs / "l2", tmp_path / "data", tmp_path / "evaluation")
    page = report(tmp_path / "evaluation").read_text()
    views, links = re.findall(r'data-view="(.*?)"', page), re.findall(r'href="#view-(.*?)"', page)
    assert len(set(views)) == 2
    assert sorted(views) == sorted(map(unquote, links))


def test_evaluations_of_other_sizes_are_refused(tiny_data, tiny_runs, tmp_path):
    data = shutil.copytree(tiny_data, tmp_path / "data")
    evaluate(tiny_runs / "l2", data, tmp_path / "results" / "before")
    for path in (*data.glob("test/*/*.png"), *data.glob("ground_truth/*/*.png")):
        image = Image.open(path)
        image.resize((image.width + 20, image.height)).save(path)
    evaluate(tiny_runs / "l2", data, tmp_path / "results" / "after")
    with pytest.raises(ValueError, match=r"of different sizes, as .*; report on each by itself"):
        report(tmp_path / "results")


@pytest.mark.parametrize("threshold", [0.0, -0.5])
def test_a_threshold_need_not_be_above_zero(comparison, tmp_path, threshold):
    folder = shutil.copytree(comparison.report.parent / "l2" / "evaluation", tmp_path / "evaluation")
    metrics = json.loads((folder / "metrics.json").read_text())
    metrics["threshold"] = threshold
    metrics["samples"][0]["largest_residual"] = threshold
    (folder / "metrics.json").write_text(json.dumps(metrics))
    page = report(folder).read_text()
    first, second, _ = re.findall(r'<tr><td>\w+</td><td><a href="#.*?</a></td><td>(.*?)</td>', page)
    assert float(first) == 1 < float(second)


def test_titles_are_no_formulae_and_hidden_names_are_shown(comparison, tmp_path):
    for name in ("cost_$a^$", "_before"):
        shutil.copytree(comparison.report.parent / "l2" / "evaluation", tmp_path / name)
    page = report(tmp_path).read_text()
    drawn = [text.strip() for text in re.findall(r"<!--(.*?)-->", page)]  # Matplotlib's, above the outlines of letters
    for name in ("cost_$a^$", "_before"):
        assert any(f"{name}: score / threshold" in text.replace("\\", "") for text in drawn)
        assert sum(f"{name}, area" in text.replace("\\", "") for text in drawn) == 2


def test_letters_that_the_font_lacks_are_left_to_the_browser(comparison, tmp_path, recwarn):
    for name in ("布 <b>", "plain"):
        shutil.copytree(comparison.report.parent / "l2" / "evaluation", tmp_path / name)
    page = report(tmp_path).read_text(encoding="utf-8")
    assert re.search(r"<text [^>]*>布 &lt;b&gt;: score / threshold</text>", page)
    assert not recwarn
    shutil.rmtree(tmp_path / "布 <b>")
    assert "<text" not in report(tmp_path).read_text(encoding="utf-8")


@pytest.mark.parametrize("lacking", ["threshold", "all", "all/roc/fpr", "training/images", "samples/0/stem"])
def test_an_evaluation_of_another_version_is_refused(comparison, tmp_path, lacking):
    folder = shutil.copytree(comparison.report.parent / "l2" / "evaluation", tmp_path / "evaluation")
    metrics = json.loads((folder / "metrics.json").read_text())
    *path, last = lacking.split("/")
    place = metrics
    for name in path:
        place = place[int(name) if name.isdecimal() else name]
    del place[last]
    (folder / "metrics.json").write_text(json.dumps(metrics))
    with pytest.raises(ValueError, match=r"evaluation.* is damaged or .*; evaluate again"):
        report(folder)


def test_names_that_are_no_utf_8_are_shown(comparison, tmp_path):
    folder = shutil.copytree(comparison.report.parent / "l2" / "evaluation", tmp_path / "evaluation")
    name = os.fsdecode(b"t\xe4il")
    try:
        for path in (folder / "images" / "dent").glob("0_*"):
            path.rename(path.with_name(path.name.replace("0", name, 1)))
    except OSError:
        pytest.skip("this file system takes UTF-8 alone")
    metrics = json.loads((folder / "metrics.json").read_text())
    assert metrics["samples"][0]["stem"] == "0"
    metrics["samples"][0]["stem"] = name
    (folder / "metrics.json").write_text(json.dumps(metrics))
    assert r"t\udce4il" in report(folder).read_text(encoding="utf-8")
