from __future__ import annotations

import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from statistics import mean

import numpy as np
import pytest

from ae import experiments
from ae.calibration import AFTERWARDS, calibrate, recalibrate, trained_with
from ae.config import PRESETS, TrainConfig
from ae.data import load_images, open_folder, split_good
from ae.evaluation import evaluate
from ae.experiments import SETS, VARIANTS, Row, experiment, rows_of, tables
from ae.images import read_image, to_bytes, write_png
from ae.run import load_run, save_run
from ae.segmentation import Segmenter
from ae.thresholds import largest_region, threshold_by_region

FEW = {"epochs": 1, "patches_per_epoch": 8, "batch_size": 4, "latent": 8, "held_out": 0.34, "stride": 64}


@pytest.fixture(scope="module")
def done(tiny_data, tmp_path_factory):
    """Two rows that share a network, one seed."""
    out = tmp_path_factory.mktemp("experiments")
    said = []
    rows = rows_of([tiny_data.name], ["best", "best, by image"], [3])
    paths = experiment(tiny_data.parent, out, rows, announce=said.append, progress=False, **FEW)
    return out, paths, said


def measured(results, data, variant):
    """Pixel ROC AUC / PRO of a variant: the mean of its rows in bfloat16, or where there is none, in float32."""
    for folder in ("ae-bfloat16", "ae"):
        rows = [json.loads(path.read_text("utf-8")) for path in (results / folder / "rows").glob(f"{data}_*.json")]
        measures = [row["measures"] for row in rows if row["variant"] == variant]
        if measures:
            return " / ".join(f"{mean(each[name] for each in measures):.3f}" for name in ("pixel_roc_auc", "pro"))
    return None


class TestExperiments:
    def test_rows_that_differ_afterwards_share_a_network(self, done):
        out, paths, said = done
        assert said == ["stripes: best, seed 3", "stripes: best, by image, seed 3"]
        assert [path.name for path in paths] == ["stripes_best_3.json", "stripes_best-by-image_3.json"]
        assert len(list((out / "runs").iterdir())) == 1
        best, by_image = (json.loads(path.read_text()) for path in paths)
        assert best["training"] == by_image["training"]
        assert (best["config"]["normalise"], by_image["config"]["normalise"]) == ("none", "image")
        assert best["measures"]["pixel_roc_auc"] != by_image["measures"]["pixel_roc_auc"]
        assert best["config"]["seed"] == 3
        assert best["classes"].keys() == {"dent"}

    def test_a_row_is_what_training_and_evaluating_give(self, done, tiny_data, tmp_path):
        out, paths, _ = done
        (run,) = (out / "runs").iterdir()
        options = {name: value for name, value in PRESETS["best"].items() if name in AFTERWARDS} | {"stride": 64}
        recalibrated = recalibrate(load_run(run), open_folder(tiny_data), **options)
        save_run(replace(recalibrated, folder=tmp_path / "run"))
        expected = evaluate(tmp_path / "run", tiny_data, tmp_path / "e")
        found = json.loads(paths[0].read_text())
        assert {name: expected["all"][name] for name in found["measures"]} == found["measures"]

    def test_finished_rows_are_kept_and_others_are_refused(self, done, tiny_data):
        out, paths, _ = done
        before = [path.stat().st_mtime_ns for path in paths]
        said = []
        rows = rows_of([tiny_data.name], ["best", "best, by image"], [3])
        experiment(tiny_data.parent, out, rows, announce=said.append, progress=False, **FEW)
        assert said == []
        assert [path.stat().st_mtime_ns for path in paths] == before
        with pytest.raises(ValueError, match="was made with other options"):
            experiment(tiny_data.parent, out, rows, progress=False, **FEW | {"epochs": 2})

    def test_rows_and_networks_of_other_images_are_refused(self, done, tiny_data, tmp_path):
        out, *_ = done
        other = shutil.copytree(tiny_data, tmp_path / tiny_data.name)
        first = min((other / "train" / "good").iterdir())
        write_png(first, to_bytes(1 - read_image(first)))
        for variant, words in [("best", "best_3.json was made with"), ("best, no blur", "was trained with")]:
            with pytest.raises(ValueError, match=f"{words} other images"):
                experiment(tmp_path, out, rows_of([tiny_data.name], [variant], [3]), progress=False, **FEW)

    def test_a_wrong_row_is_named_before_another_is_trained(self, tiny_data, tmp_path):
        for sets, variants, words in [
            (["stripes"], ["best", "bset"], "variant is 'bset'"),
            (["stripes", "strips"], ["best"], "strips is no folder"),
        ]:
            with pytest.raises(ValueError, match=words):
                experiment(tiny_data.parent, tmp_path, rows_of(sets, variants, [0]), progress=False, **FEW)
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize("name", ["stripes/", "sub/stripes", "../stripes"])
    def test_a_data_set_goes_by_its_name(self, tiny_data, tmp_path, name):
        with pytest.raises(ValueError, match=f"data set is '{name}'; give its folder's name alone"):
            experiment(tiny_data.parent, tmp_path, rows_of([name], ["best"], [0]), progress=False, **FEW)
        assert list(tmp_path.iterdir()) == []

    def test_tables_show_mean_and_spread(self, done, tmp_path):
        _, paths, _ = done
        (tmp_path / "rows").mkdir()
        row = json.loads(paths[0].read_text())
        for seed, auc in enumerate((0.9, 0.92, 0.94)):
            content = row | {"seed": seed, "measures": row["measures"] | {"pixel_roc_auc": auc}}
            (tmp_path / "rows" / f"{seed}.json").write_text(json.dumps(content))
        page = tables(tmp_path)
        assert "### stripes" in page
        assert "| best | 3 | 0.920 ± 0.020 |" in page
        with pytest.raises(ValueError, match="holds no row"):
            tables(tmp_path / "elsewhere")
        (tmp_path / "rows" / "older.json").write_text(json.dumps(row | {"variant": "of another version"}))
        known, last = tables(tmp_path)[: len(page)], tables(tmp_path)[len(page) :]
        assert known == page
        assert last.startswith("| of another version | 1 | ")
        for damaged in ({}, row | {"measures": {}}, row | {"training": []}):
            (tmp_path / "rows" / "other.json").write_text(json.dumps(damaged))
            with pytest.raises(ValueError, match=r"other\.json is no row of `ae experiment`"):
                tables(tmp_path)

    def test_every_variant_is_a_configuration_and_every_name_a_file(self):
        rows = rows_of(list(experiments.SETS), list(VARIANTS), [0, 1])
        names = {row.name for row in rows}
        assert len(names) == len(rows)
        assert all(row.config(time_budget=60).time_budget == 60 for row in rows)
        assert Row("nanotwice_a", "ssim", 0).config().latent == 500
        assert Row("nanotwice_a", "best, latent 50", 0).config().latent == 50
        with pytest.raises(ValueError, match="variant is 'worst'"):
            Row("nanotwice_a", "worst", 0).config()

    def test_the_tables_of_the_results_page_are_those_of_the_committed_rows(self):
        root = Path(__file__).parents[2]
        page = (root / "docs" / "results.md").read_text(encoding="utf-8")
        folders = sorted(path.parent for path in (root / "bench" / "results").glob("*/rows"))
        assert folders
        for folder in folders:
            for line in tables(folder).splitlines():
                assert line in page, folder

    def test_the_table_in_the_readme_is_of_those_rows(self):
        root = Path(__file__).parents[2]
        readme = (root / "README.md").read_text(encoding="utf-8")
        table = re.search(r"\| \| `best` .*?\n\n", readme, re.DOTALL).group()
        variants = re.findall(r"`(\w+)`", table.splitlines()[0])
        lines = re.findall(r"^\|[^|]*`(\w+)` \|(.*)\|$", table, re.MULTILINE)
        assert {data for data, _ in lines} == set(SETS)
        for data, cells in lines:
            for variant, cell in zip(variants, cells.split("|"), strict=True):
                found = measured(root / "bench" / "results", data, variant)
                assert found == cell.strip(), (data, variant)


class TestCalibration:
    def test_the_region_rule_leaves_good_images_without_such_a_region(self, tiny_data, tiny_runs):
        data, run = open_folder(tiny_data), load_run(tiny_runs / "ssim")
        found = recalibrate(run, data, threshold_rule="region", minimum_area=30)
        images = load_images(data.train, channels=1, scale=1.0, smallest=128)
        _, held_out = split_good(images, run.config.held_out, run.config.seed, 128)
        segmenter = Segmenter(replace(found, config=replace(found.config, minimum_area=0)))
        largest = [largest_region(segmenter(image).residual > found.threshold) for image in held_out]
        assert 0 < max(largest) < 30

    def test_the_run_that_is_given_stays_as_it_is(self, tiny_data, tiny_runs):
        run = load_run(tiny_runs / "ssim")
        found = recalibrate(run, open_folder(tiny_data), residual_scales=2, smoothing=1.0)
        assert run.method.config == run.config != found.config == found.method.config
        assert all(a is b for a, b in zip(run.method.parameters(), found.method.parameters(), strict=True))

    def test_all_images_are_looked_at_where_they_are_others_than_those_trained_with(self, tiny_data, tiny_runs):
        run, data = load_run(tiny_runs / "ssim"), open_folder(tiny_data)
        others = replace(data, train=data.train[:-1])
        images = load_images(others.train, channels=1, scale=run.config.scale, smallest=128)
        assert recalibrate(run, others).threshold == calibrate(run.method, images, run.config)[0]

    @pytest.mark.parametrize(
        ("scale", "options"),
        [(0.92, {"false_positive_rate": 0.02}), (1.5, {"threshold_rule": "region", "minimum_area": 40})],
    )
    def test_the_threshold_is_one_of_scores_in_the_images_own_size(self, tiny_data, tiny_runs, scale, options):
        data, run = open_folder(tiny_data), load_run(tiny_runs / "ssim")
        small = replace(run, config=replace(run.config, scale=scale, held_out=0.0))
        found = recalibrate(small, data, **options)
        segmenter = Segmenter(found)
        scores = [segmenter(path).residual for path in data.train]
        if "minimum_area" in options:
            assert found.threshold == threshold_by_region(scores, 40)
        else:
            marked = np.mean([score > found.threshold for score in scores])
            assert marked == pytest.approx(0.02, abs=1e-4)

    def test_levelled_scores_survive_the_run_folder(self, tiny_data, tiny_runs, tmp_path):
        plain, data = load_run(tiny_runs / "ssim"), open_folder(tiny_data)
        every = replace(plain, config=replace(plain.config, held_out=0.0))
        run = recalibrate(every, data, normalise="level")
        assert 0 < run.level.share < 1
        save_run(replace(run, folder=tmp_path))
        image = tiny_data / "test" / "dent" / "0.png"
        residual, found = Segmenter(plain)(image).residual, Segmenter.load(tmp_path)(image).residual
        above = run.level.share * (np.median(residual) - run.level.middle)
        np.testing.assert_allclose(found, residual - above, atol=1e-6)
        assert above != 0

    def test_scores_by_contrast_survive_the_run_folder(self, tiny_data, tiny_runs, tmp_path):
        run = recalibrate(load_run(tiny_runs / "ssim"), open_folder(tiny_data), normalise="contrast")
        save_run(replace(run, folder=tmp_path))
        image = tiny_data / "test" / "dent" / "0.png"
        expected, found = Segmenter(run)(image), Segmenter.load(tmp_path)(image)
        np.testing.assert_array_equal(found.residual, expected.residual)
        assert found.residual.min() < 0
        assert load_run(tmp_path).threshold == run.threshold

    def test_options_of_a_training_cannot_change(self, tiny_data, tiny_runs):
        with pytest.raises(ValueError, match="latent, method cannot change after a training"):
            recalibrate(load_run(tiny_runs / "ssim"), open_folder(tiny_data), method="l2", latent=3, stride=8)
        config = TrainConfig(stride=5, latent=7)
        assert trained_with(config) == TrainConfig(latent=7)

    def test_all_images_are_looked_at_where_none_is_held_out(self, tiny_data, tiny_runs):
        run = load_run(tiny_runs / "l2")
        images = load_images(open_folder(tiny_data).train, channels=1, scale=1.0, smallest=128)
        run.method.config = config = replace(run.config, held_out=0.0)
        found = recalibrate(replace(run, config=config), open_folder(tiny_data))
        assert found.threshold == calibrate(run.method, images, config)[0]
