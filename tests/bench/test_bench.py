"""The benchmark measures what it says, and says what it measured."""

import itertools
import json
import sys

import numpy as np
import pytest
import torch
from numba import types

import fastssim
from bench import __main__ as command
from bench import accuracy, cases, compat, harness, measure, peers, results, roofline, scaling, segment, ssim
from bench.calls import Calls
from bench.cases import CASES, Case, hard_cases, images
from bench.conventions import PER_CHANNEL, REFLECT, UNIFORM, VALID, decimated
from bench.peers import MS_SSIM, SSIM, UNIFORM_SSIM, Peer
from bench.suites import SUITES, Suite
from fastssim import reference
from fastssim.cpu.simd import lanes

BY_NAME = {peer.name: peer for peer in SSIM}
LIMITS = roofline.Roofline(threads=1, fma_per_second=1e11, bytes_per_second=1e10)


def quiet(_):
    pass


def test_the_cases_are_those_of_the_documentation():
    on_cpu = ["16x1x128x128", "1x1x1024x1024", "4x3x512x512", "1x3x2160x3840"]
    assert [case.name for case in cases.selected(quick=False)] == on_cpu
    assert [case.name for case in cases.selected(quick=False, device="cuda")] == [*on_cpu, "8x3x1080x1920"]
    x, y = images(CASES[0])
    assert x.dtype == torch.float32
    assert 0 <= x.min() < y.max() <= 1
    assert torch.equal(x, images(CASES[0])[0])  # every library and every run gets the same
    assert [case.name for case in cases.selected(quick=True, smallest=176)] == ["4x3x512x512"]


def test_a_large_batch_is_compared_in_part_and_timed_whole(monkeypatch):
    asked = []

    class Told(Calls):
        def inputs(self, **arrays):
            asked.append(arrays["x"].shape)
            super().inputs(**arrays)

    monkeypatch.setattr(measure, "Calls", Told)
    case = Case((3, 1, 24, 32), checked=1)
    (row,) = measure.measure([ssim.KINDS[0]], [case], ["fastssim"], LIMITS, rounds=1, announce=quiet)
    assert asked == [(1, 1, 24, 32), (3, 1, 24, 32)]
    assert row["equal"]
    assert row["ns_per_pixel"] == pytest.approx(1e6 * row["median_ms"] / (3 * 24 * 32))


OTHER = ("multi-scale", "blazediff-ssim")  # no convention known that gives its value: the table marks it
INSTALLED = [
    pytest.param(
        peer,
        table,
        id=f"{table}-{peer.name}",
        marks=[] if (table, peer.name) != OTHER else [pytest.mark.xfail(reason="computes something else")],
    )
    for table, found in (("gaussian", SSIM), ("uniform", UNIFORM_SSIM), ("multi-scale", MS_SSIM))
    for peer in found
    if peer.environment is None and "cpu" in peer.devices and "compiled" not in peer.name
]


@pytest.mark.parametrize(("peer", "table"), INSTALLED)
def test_every_peer_computes_its_convention(peer, table):
    try:
        score = peer.score()
    except ImportError as error:
        pytest.skip(str(error))
    window = 7 if table == "uniform" else 11
    x, y = images(Case((2, 1, 192, 176)) if table == "multi-scale" else Case((2, 3, 40, 56)))
    value = float(score(peer.prepare(x, 1.0), peer.prepare(y, 1.0), 1.0, window))
    assert abs(value - peer.convention.value(x.numpy(), y.numpy(), 1.0, window)) < 5e-6
    if peer.gradient and table == "gaussian":
        x, y = x.double().requires_grad_(), y.double()
        score(x, y, 1.0, window).backward()
        expected = peer.convention.gradient(x.detach().numpy(), y.numpy(), 1.0, window)
        assert np.abs(x.grad.numpy() - expected).max() < 1e-5 * np.abs(expected).max()


def test_conventions_are_built_of_the_reference():
    x, y = (image.double().numpy() for image in images(Case((1, 2, 90, 40))))
    assert VALID.value(x, y) == pytest.approx(reference.ssim(x, y).mean(), rel=1e-13)  # more rows than a strip
    border = ((0, 0), (0, 0), (5, 5), (5, 5))
    mirrored = reference.ssim(np.pad(x, border, mode="reflect"), np.pad(y, border, mode="reflect"))
    assert REFLECT.value(x, y) == pytest.approx(mirrored.mean(), rel=1e-13)
    patches = [np.lib.stride_tricks.sliding_window_view(image, (7, 7), (2, 3)) for image in (x, y)]
    mean_x, mean_y = (patch.mean((-2, -1)) for patch in patches)
    sample = [patch.var((-2, -1), ddof=1) for patch in patches]
    cross = (patches[0] * patches[1]).mean((-2, -1)) - mean_x * mean_y
    luminance = (2 * mean_x * mean_y + 1e-4) / (mean_x**2 + mean_y**2 + 1e-4)
    index = luminance * (2 * cross * 49 / 48 + 9e-4) / (sum(sample) + 9e-4)
    assert UNIFORM.value(x, y, window=7) == pytest.approx(index.mean(), rel=1e-10)


def test_the_mean_of_volumes_is_the_references():
    x, y = (image.double().numpy() for image in images(Case((1, 2, 70, 9, 8))))  # more planes than a strip
    expected = reference.ssim(x, y, window=fastssim.Gaussian(5), dims=3).mean()
    assert VALID.value(x, y, window=5) == pytest.approx(expected, rel=1e-13)


def test_the_mirrored_gradient_is_the_slope():
    x, y = (image.double().numpy() for image in images(Case((1, 1, 14, 13))))
    gradient = REFLECT.gradient(x, y)
    step = np.zeros_like(x)
    for place in ((0, 0, 0, 0), (0, 0, 1, 12), (0, 0, 7, 6)):
        step[:] = 0
        step[place] = 1e-5
        slope = (REFLECT.value(x + step, y) - REFLECT.value(x - step, y)) / 2e-5
        assert gradient[place] == pytest.approx(slope, rel=1e-6, abs=1e-9)


def test_the_multi_scale_definition():
    x, y = (image.double() for image in images(Case((1, 2, 176, 192))))
    msssim = pytest.importorskip("pytorch_msssim")
    expected = msssim.ms_ssim(x, y, data_range=1.0).item()
    assert PER_CHANNEL.value(x.numpy(), y.numpy()) == pytest.approx(expected, abs=1e-6)  # its taps are float32


def test_decimation_takes_the_mean_of_the_pixels_about_every_second_one():
    image = np.arange(512.0 * 512).reshape(1, 1, 512, 512)
    half = decimated(image)
    assert half.shape == (1, 1, 256, 256)
    assert half[0, 0, 3, 4] == image[0, 0, 5:7, 7:9].mean()


class Clock:
    """A function that takes what it is told to, in turn."""

    def __init__(self, *seconds):
        self._seconds = itertools.cycle(seconds)
        self.timed = 0

    def __call__(self):
        return None

    def seconds(self, _):
        self.timed += 1
        return next(self._seconds)


def test_rounds_are_interleaved_with_the_function_beside():
    order = []
    functions = {name: lambda name=name: order.append(name) for name in ("own", "a", "b")}
    harness.interleaved(functions, rounds=2, beside="own")
    squeezed = [name for name, before in zip(order, [None, *order], strict=False) if name != before]
    assert squeezed[-4:] == ["a", "own", "b", "own"]
    assert squeezed.count("a") == 3  # once beforehand
    assert order.count("a") > 2 * harness.WARM_CALLS  # a sample is of many calls
    order.clear()
    harness.interleaved({"own": functions["own"]}, rounds=2, beside="own")
    assert set(order) == {"own"}


@pytest.mark.parametrize(("seconds", "count"), [(0.1, 8), (0.3, 4), (0.6, 2), (30.0, 1)])
def test_what_takes_long_is_called_less_often(seconds, count):
    slow, noisy = Clock(seconds), Clock(*(0.05 * 1.1**power for power in range(9)))
    samples = harness.interleaved({"slow": slow, "noisy": noisy}, rounds=9)
    assert samples["slow"].seconds == [seconds] * count
    assert slow.timed == count
    assert len(samples["noisy"].seconds) == 9


def test_a_short_function_is_repeated_and_what_is_settled_is_not():
    short = Clock(2e-3, 1e-3)  # as if the calls after another function's were slow
    samples = harness.interleaved({"short": short}, rounds=100)
    assert short.timed == 2 * harness.LEAST  # before each sample, calls that do not count
    assert samples["short"].seconds == [1e-3] * harness.LEAST


def test_sampling_ends_when_the_best_samples_agree():
    one = Clock(3.0, 2.0, 1.02, 5.0, 1.0, 4.0, 1.2, 1.1, 1.01, 9.0)
    assert len(harness.interleaved({"one": one}, rounds=1000)["one"].seconds) == 9


def test_sampling_goes_on_until_the_function_beside_is_at_its_best():
    functions = {"own": Clock(0.1, 0.2, 0.2), "first": Clock(0.05), "second": Clock(0.05)}
    found = harness.interleaved(functions, rounds=100, beside="own")
    assert len(found["first"].seconds) == harness.LEAST
    assert found["second"].beside[: 2 * harness.LEAST] == [0.2] * 2 * harness.LEAST  # as long as the first took part
    assert sorted(found["second"].beside)[:3] == [0.1] * 3


def test_a_ratio_is_one_of_leasts_from_the_same_rounds():
    own, other = Clock(1.0, 3.0, 5.0, 2.0), Clock(4.0, 40.0)
    found = harness.interleaved({"own": own, "other": other}, rounds=100, beside="own")
    assert found["other"].seconds == [4.0, 40.0]
    assert found["other"].beside == [1.0, 3.0, 5.0, 2.0]
    assert found["other"].ratio() == (4 / 3, 4.0, 40.0)
    assert found["other"].mean_ratio() == pytest.approx((4 / 2 * 40 / 3.5) ** 0.5)  # beside 1 and 3, 5 and 2
    assert found["own"].beside == []


def test_summary_of_one_sample():
    expected = {"median_ms": 4.0, "least_ms": 4.0, "lower_ms": 4.0, "upper_ms": 4.0, "samples": 1}
    assert harness.summary([0.004]) == expected


@pytest.mark.skipif(sys.platform != "linux", reason="other C libraries are left as they are")
def test_calls_that_are_timed_keep_their_memory():
    resource = pytest.importorskip("resource")
    size = 1 << 25  # doubles: far above what glibc keeps by itself

    def faults():
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        np.zeros(size).fill(1)
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    with Calls():
        faults()
        assert faults() < 16  # of 65 536 pages, or of 128 large ones


def test_the_roofline_takes_what_binds():
    assert LIMITS.seconds(fma=1e11, moved=1) == 1
    assert LIMITS.seconds(fma=1, moved=1e10) == 1


def test_the_roofline_multiplies_and_adds_what_it_counts():
    values = np.full(roofline._under_way() * lanes(types.float32), 0.5, np.float32)
    roofline._multiply_add(values, 3)
    np.testing.assert_allclose(values, 1 - 0.5 * 0.999 ** (3 * roofline.STEPS), rtol=1e-5)


def test_the_roofline_is_measured(monkeypatch):
    monkeypatch.setattr(roofline, "COPIED", 1 << 20)
    monkeypatch.setattr(roofline, "REPEATS", 100)
    limits = roofline.measure()
    assert limits.threads == torch.get_num_threads()
    assert 1e8 < limits.fma_per_second < 1e14
    assert 1e8 < limits.bytes_per_second < 1e13


@pytest.mark.usefixtures("small")
def test_command_writes_results_and_table(tmp_path, capsys):
    command.main(["ssim", "--quick", "--rounds", "2", "--peers", "fastssim", "--out", str(tmp_path)])
    printed = capsys.readouterr().out
    content = json.loads((tmp_path / "ssim.json").read_text())
    assert [path.name for path in tmp_path.iterdir()] == ["ssim.json"]
    assert {row["case"] for row in content["rows"]} == {"2x1x48x40"}
    assert [row["kind"] for row in content["rows"]] == [kind.name for kind in ssim.KINDS]
    for row, kind in zip(content["rows"], ssim.KINDS, strict=True):
        assert row["equal"]
        assert row["times_fastssim"] == 1
        least = LIMITS.seconds(48 * 40 * 2 * kind.fma, 48 * 40 * 2 * kind.moved)
        assert row["roofline_share"] == pytest.approx(1e3 * least / row["median_ms"])
    assert "| 2x1x48x40 | fastssim" in printed
    assert "In none of the above." in printed


@pytest.mark.usefixtures("small")
def test_quick_drop_ins_are_timed_with_their_gradient_where_they_have_one(monkeypatch):
    monkeypatch.setattr(compat, "CASE", Case((1, 1, 32, 32)))
    kinds = {row["kind"] for row in compat.run(["fastssim"], quick=True, rounds=1)["rows"]}
    assert {"frame_analytics.ssim, forward + gradient", "structural_similarity"} <= kinds
    assert not [kind for kind in kinds if kind.endswith(", forward")]
    functions = {kind.table for kind in compat.KINDS if "SCALES" not in kind.table}
    assert len(kinds) == len(functions)  # each once


@pytest.mark.usefixtures("small")
def test_a_peer_that_computes_something_else_or_is_absent_is_marked(monkeypatch):
    def absent():
        raise ImportError("No module named 'nowhere'")

    def fails():
        return lambda *_: 1 / 0

    others = (
        Peer("half", "nothing-of-that-name", lambda: lambda x, y, *_: (x * y).mean() / 2),
        Peer("absent", "nothing-of-that-name", absent),
        Peer("fails", "nothing-of-that-name", fails),
        Peer("elsewhere", "nothing-of-that-name", absent, devices=("cuda",)),
    )
    monkeypatch.setattr(peers, "SSIM", (SSIM[0], *others))
    measured = ssim.run([peer.name for peer in peers.SSIM], quick=True, rounds=1)
    content = {**results.describe(), "suite": "ssim", **measured}
    by_peer = {row["peer"]: row for row in content["rows"] if row["kind"] == "forward"}
    assert by_peer.keys() == {"fastssim", "half", "absent", "fails"}
    assert not by_peer["half"]["equal"]
    assert "median_ms" in by_peer["half"]
    assert "times_fastssim" not in by_peer["half"]  # not timed as equal
    assert "median_ms" not in by_peer["absent"]
    page = results.markdown([("a run", content)])
    assert "differs by" in page
    assert "not measured: No module named 'nowhere'" in page
    assert "not measured: ZeroDivisionError: division by zero" in page


def test_losses_are_named():
    case = {"case": "c", "kind": "forward"}
    own = {"peer": "fastssim", "times_fastssim": 1.0, "peak_mib": 8.0, "value_error": 5e-8, "gradient_error": 2e-7}
    own["least_ms"] = 2.0
    better = {
        "peer": "other",
        "times_fastssim": 0.5,
        "least_ms": 1.0,
        "peak_mib": 4.0,
        "value_error": 1e-9,
        "gradient_error": 1e-7,
    }
    rows = [
        case | own,
        case | better,
        case | {"peer": "third", "times_fastssim": 2.0, "peak_mib": 7.0, "gradient_error": 1e-6},
        case | {"peer": "tie", "times_fastssim": 0.996, "peak_mib": 7.96, "gradient_error": 1.6e-7},  # 1.00, 8.0, 2e-07
        case | {"peer": "incomparable", "peak_mib": 1.0, "comparable": False},
    ]
    lines = [line for line in results._losses(rows).splitlines() if line.startswith("-")]
    assert lines == [
        "- c, forward, share of our time: other 0.50",
        "- c, forward, peak, MiB (ours 8.0): other 4.0, third 7.0",
        "- c, forward, error of the gradient, largest (ours 2e-07): other 1e-07",
    ]


def test_accuracy_compares_value_and_gradient():
    rows = accuracy.run(["fastssim", "pytorch-msssim"], quick=True, rounds=1)["rows"]
    assert len(rows) == 2 * len(hard_cases())
    for row in rows:
        assert row["value_error"] < (1e-6 if row["peer"] == "fastssim" else 1e-3), row
        assert row["gradient_error"] < (2e-6 if row["peer"] == "fastssim" else 0.1), row


@pytest.mark.parametrize("task", ["train_step", "fit_step"])
def test_a_training_step_lowers_the_loss(task):
    x, _ = images(Case((1, 1, 128, 128)))
    with Calls() as calls:
        calls.inputs(x=x)
        step = calls.make(BY_NAME["fastssim"], "bench.peers:SSIM", f"bench.tasks:{task}")
        losses = [step() for _ in range(8)]
    assert losses[-1] < losses[0]


def test_segmenting_is_checked_by_a_slow_twin(monkeypatch):
    monkeypatch.setattr(segment, "CASES", (Case((1, 1, 192, 160)),))
    monkeypatch.setattr(segment, "STRIDE", 48)
    row, alone = segment.run(["fastssim", "network alone"], quick=True, rounds=1)["rows"]
    assert row["equal"]
    assert alone["equal"]
    assert row["megapixels_per_second"] == pytest.approx(192 * 160 / row["median_ms"] / 1e3)


def test_points_of_scaling():
    wanted = list(scaling.points(quick=False, full=False))
    assert [point.value for point in wanted if point.axis == "pixels"] == [1 << power for power in range(14, 27, 2)]
    assert all(point.case.pixels == point.value for point in wanted if point.axis == "pixels")
    assert max(point.value for point in scaling.points(quick=False, full=True)) == 1 << 28


def test_a_slope_is_fitted():
    row = {"kind": "forward", "axis": "pixels", "peer": "p"}
    rows = [row | {"value": n, "least_ms": 5 * n**1.5} for n in (1, 4, 64)]
    assert scaling.fits(rows) == [row | {"exponent": 1.5, "points": 3}]
    assert scaling.fits(rows[:2]) == []


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_names_its_libraries(name):
    assert "fastssim" in SUITES[name].peers


def test_a_plugged_in_suite_is_run_like_the_others(monkeypatch, capsys):
    class Plugged:
        PEERS = (Peer("fastssim", "fastssim", lambda: fastssim.ssim),)

        @staticmethod
        def run(peers, *, quick, rounds, announce):
            announce("begins")
            row = {"case": "c", "kind": "k", "peer": "fastssim", "version": "1", "instructions": rounds, "quick": quick}
            return {"rows": [row] if peers == ["fastssim"] else []}

    monkeypatch.setitem(__import__("sys").modules, "bench.plugged", Plugged)
    monkeypatch.setitem(SUITES, "ssim", Suite("bench.plugged", "something"))
    command.main(["ssim", "--rounds", "3"])
    said = capsys.readouterr()
    assert "| case | library | instructions | quick |" in said.out
    assert "| c | fastssim 1 | 3 | False |" in said.out
    assert "ssim: begins" in said.err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ssim", "--peers", "nobody"], "no peer is named nobody; there are fastssim, frame-analytics, pytorch-msssim"),
        (["ssim", "--rounds", "0"], "--rounds is 0; give at least 1"),
        (["ssim", "--threads", "0"], "--threads is 0; give at least 1"),
        (["compare", "nowhere.json", "nowhere.json"], "nowhere.json cannot be read"),
        (["compare", ".", ".", "--tolerance", "0"], "--tolerance is 0.0; give a share above 0"),
        (["compare", ".", ".", "--tolerance", "inf"], "--tolerance is inf; give a share above 0"),
    ],
)
def test_wrong_words(words, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        command.main(words)
    assert message in capsys.readouterr().err


def test_a_folder_that_cannot_be_made_is_named_before_anything_is_measured(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(Suite, "run", lambda *_, **__: pytest.fail("measured"))
    file = tmp_path / "file"
    file.touch()
    with pytest.raises(SystemExit, match="2"):
        command.main(["ssim", "--out", str(file)])
    assert f"--out is {file}: File exists; give a folder" in capsys.readouterr().err
    monkeypatch.setattr("bench.sass.rows", lambda _: pytest.fail("compiled"))
    with pytest.raises(SystemExit, match="2"):
        command.main(["sass", "--out", str(file / "deep")])
    assert f"--out is {file / 'deep'}: Not a directory; give a folder" in capsys.readouterr().err


@pytest.mark.skipif(torch.cuda.is_available(), reason="shows what is said without a GPU")
@pytest.mark.parametrize("words", [["gpu"], ["ssim", "--device", "cuda"], ["ms-ssim", "--device", "cuda"]])
def test_without_a_gpu_the_command_says_so(words):
    message = rf"{words[0]}: no NVIDIA GPU that torch .* can use; install torch for your driver"
    with pytest.raises(SystemExit, match=message):
        command.main(words)


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (ImportError("No module named 'cuda'"), r"sass: No module named 'cuda'; the compiler comes with .*\.\[test\]"),
        (RuntimeError("march for foo:\nnvrtc: error: invalid\n "), r"sass: march for foo: nvrtc: error: invalid$"),
    ],
)
def test_what_machine_code_lacks_is_one_line(monkeypatch, error, message):
    def fails(_):
        raise error

    monkeypatch.setattr("bench.sass.main", fails)
    with pytest.raises(SystemExit, match=message):
        command.main(["sass"])


def test_all_runs_what_it_can(monkeypatch, capsys):
    def none(*_, **__):
        raise RuntimeError("no NVIDIA GPU")

    row = {"case": "c", "kind": "k", "peer": "fastssim", "version": "1", "median_ms": 1.0}
    monkeypatch.setattr(Suite, "run", lambda *_, **__: {"rows": [row]})
    monkeypatch.setattr("bench.gpu.run", none)
    real = SUITES["gpu"]

    class Gpu(Suite):
        def run(self, *_, **__):
            return none()

    monkeypatch.setitem(SUITES, "gpu", Gpu(real.module, real.purpose))
    command.main(["all"])
    said = capsys.readouterr()
    assert said.out.count("| c | fastssim 1 | 1 |") == len(SUITES) - 1
    assert "gpu: left out, no NVIDIA GPU" in said.err


def test_an_error_of_a_peer_is_one_line():
    assert measure.attempt(lambda: 1 / 0) == "ZeroDivisionError: division by zero"


def test_a_peer_that_fails_later_does_not_stop_the_others():
    calls = iter(range(100))

    def fails():
        if next(calls) > 2:
            raise AssertionError("out of range")

    wanted = [Peer(name, name, lambda: None) for name in ("fastssim", "fails")]
    make = {"fastssim": lambda: lambda: None, "fails": lambda: fails}
    own, other = measure.timed({"case": "c", "kind": "k"}, wanted, make, {}, rounds=3)
    assert own["times_fastssim"] == 1
    assert other["absent"] == "AssertionError: out of range"
    assert "median_ms" not in other


def test_machine_code_is_written_where_a_folder_is_given(monkeypatch, tmp_path):
    row = {"case": "march", "kind": "k", "peer": "fastssim", "version": "1", "registers": 64, "H100, issue, ps": 10.8}
    monkeypatch.setattr("bench.sass.rows", lambda architecture: [row | {"kind": architecture}])
    for out, file in (("results", "results/sass.json"), ("machine code.json", "machine code.json")):
        command.main(["sass", "--arch", "sm_89", "--out", str(tmp_path / out)])
        content = json.loads((tmp_path / file).read_text())
        assert content["rows"] == [row | {"kind": "sm_89"}]
    assert "| march | fastssim 1 | 64 | 10.8 |" in results.section("a run", content)


def test_results_go_to_a_file_that_is_named(monkeypatch, tmp_path, capsys):
    row = {"case": "c", "kind": "k", "peer": "fastssim", "version": "1", "median_ms": 1.0}
    monkeypatch.setattr(Suite, "run", lambda *_, **__: {"rows": [row]})
    command.main(["accuracy", "--out", str(tmp_path / "new" / "mine.json")])
    assert json.loads((tmp_path / "new" / "mine.json").read_text())["rows"] == [row]
    with pytest.raises(SystemExit):
        command.main(["all", "--out", str(tmp_path / "mine.json")])
    assert "all writes several files; give a folder" in capsys.readouterr().err


def test_a_device_that_is_not_measured_on_is_refused(capsys):
    with pytest.raises(SystemExit):
        command.main(["tiles", "--device", "cuda"])
    assert "tiles is measured on the CPU; --device cuda is of ssim, ms-ssim, gpu" in capsys.readouterr().err
