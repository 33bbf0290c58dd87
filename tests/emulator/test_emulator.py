"""The emulator catches what it is there to catch."""

from __future__ import annotations

import numpy as np
import pytest
from emulate import Buffer, EmulationError, build, run, run_sanitized, same_in_every_order

ARGUMENT = np.dtype([("x", np.uintp), ("out", np.uintp), ("count", np.int64)])
HEAD = """
struct Problem { const float* x; float* out; long long count; };
extern "C" __global__ void kernel(const Problem problem) {
    const int t = threadIdx.x;
    const int i = blockIdx.x * blockDim.x + t;
"""
ROTATE = """
    SHARED(float, row, 64);
    row[t] = problem.x[i];
    {barrier}
    problem.out[i] = row[(t + 1) % 64];
}}
"""
SUM = """
    float sum = problem.x[i];
    for (int step = 16; step > 0; step /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, step);
    if (t % 32 == 0) problem.out[i / 32] = sum;
}
"""


def launch(body, x, out, *, order=0, blocks=None, threads=64, sanitize=False):
    library = build(HEAD + body, "kernel", "Problem", sanitize=sanitize)
    x, out = Buffer(x), Buffer(out)
    argument = np.array([(x.array.ctypes.data, out.array.ctypes.data, x.array.size)], ARGUMENT)
    run(library, argument, (x.array.size // threads if blocks is None else blocks, 1, 1), (threads, 1, 1), order=order)
    x.check()
    out.check()
    return (out.array,)


@pytest.fixture
def numbers():
    return np.random.default_rng(0).random(256).astype(np.float32)


def test_threads_blocks_shared_memory_and_barriers(numbers):
    body = ROTATE.format(barrier="__syncthreads();")
    (out,) = same_in_every_order(lambda order: launch(body, numbers, np.zeros_like(numbers), order=order))
    assert (out == np.roll(numbers.reshape(4, 64), -1, axis=1).reshape(-1)).all()


def test_shuffles(numbers):
    (out,) = same_in_every_order(lambda order: launch(SUM, numbers, np.zeros(8, np.float32), order=order))
    np.testing.assert_allclose(out, numbers.reshape(8, 32).sum(axis=1), rtol=1e-6)


def test_three_dimensional_grids_and_blocks():
    body = """
        const int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
        const int block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
        problem.out[block * 24 + thread] = problem.x[block * 24 + thread];
        (void)i;
    }
    """
    x, out = Buffer(np.arange(24 * 30, dtype=np.float32)), Buffer.empty(24 * 30, np.float32)
    argument = np.array([(x.array.ctypes.data, out.array.ctypes.data, 0)], ARGUMENT)
    run(build(HEAD + body, "kernel", "Problem"), argument, (2, 3, 5), (4, 3, 2), order=2)
    assert (out.array == x.array).all()


def test_a_missing_barrier_is_caught(numbers):
    with pytest.raises(EmulationError, match="depends on the order"):
        same_in_every_order(
            lambda order: launch(ROTATE.format(barrier=""), numbers, np.zeros_like(numbers), order=order)
        )


def test_a_missing_barrier_before_memory_is_written_again_is_caught(numbers):
    body = """
        SHARED(float, row, 64);
        row[t] = problem.x[i];
        __syncthreads();
        const float other = row[63 - t];
        row[t] = 2 * other;
        __syncthreads();
        problem.out[i] = row[t];
    }
    """
    with pytest.raises(EmulationError, match="depends on the order"):
        same_in_every_order(lambda order: launch(body, numbers, np.zeros_like(numbers), order=order))


def test_shared_memory_holds_nan_at_first(numbers):
    body = "SHARED(float, row, 64); problem.out[i] = row[t]; }"
    assert np.isnan(launch(body, numbers, np.zeros_like(numbers))[0]).all()


@pytest.mark.parametrize("place", ["-1", "problem.count"])
def test_a_write_outside_a_buffer_is_caught(numbers, place):
    with pytest.raises(EmulationError, match=r"a write .* a buffer"):
        launch(f"problem.out[i == 0 ? {place} : i] = 1; }}", numbers, np.zeros_like(numbers))


def test_a_write_outside_a_shared_array_is_caught(numbers):
    body = "SHARED(float, row, 64); row[t == 5 ? 64 : t] = 1; problem.out[i] = 0; }"
    with pytest.raises(EmulationError, match="behind the shared array"):
        launch(body, numbers, np.zeros_like(numbers))


@pytest.mark.parametrize("condition", ["t < 40", "t == 0"])
def test_a_barrier_for_a_part_of_the_block_is_caught(numbers, condition):
    with pytest.raises(EmulationError, match="reached by"):
        launch(f"if ({condition}) {{ __syncthreads(); }} problem.out[i] = 0; }}", numbers, np.zeros_like(numbers))


def test_divergent_barriers_are_caught(numbers):
    body = """
        if (t < 32) {
            __syncthreads();
        } else {
            __syncthreads();
        }
        problem.out[i] = 0;
    }
    """
    with pytest.raises(EmulationError, match="divergent barriers"):
        launch(body, numbers, np.zeros_like(numbers))


def test_a_shuffle_without_its_lanes_is_caught(numbers):
    body = "if (t % 32 < 7) problem.out[i] = __shfl_sync(0xffffffffu, problem.x[i], 0); }"
    with pytest.raises(EmulationError, match="deadlock"):
        launch(body, numbers, np.zeros_like(numbers))


def test_a_lane_outside_the_mask_brings_nan(numbers):
    body = "problem.out[i] = t % 32 < 16 ? __shfl_sync(0xffffu, problem.x[i], 20) : 0.0f; }"
    (out,) = launch(body, numbers, np.zeros_like(numbers))
    assert np.isnan(out.reshape(8, 32)[:, :16]).all()


def test_a_race_between_blocks_is_caught(numbers):
    with pytest.raises(EmulationError, match="depends on the order"):
        same_in_every_order(
            lambda order: launch("problem.out[0] += problem.x[i]; }", numbers, np.zeros(1, np.float32), order=order)
        )


def test_too_much_shared_memory_is_caught(numbers):
    body = "SHARED(float, row, 12 * 1024); SHARED(float, more, 64); row[t] = more[t] = 0; problem.out[i] = 0; }"
    with pytest.raises(EmulationError, match=r"shared memory of \d+ bytes"):
        launch(body, numbers, np.zeros_like(numbers))
    just_enough = "SHARED(float, row, 12 * 1024); row[t] = 0; problem.out[i] = row[t]; }"
    assert (launch(just_enough, numbers, np.ones_like(numbers))[0] == 0).all()


def test_buffers_keep_strides():
    content = np.arange(24.0).reshape(2, 3, 4).transpose(2, 0, 1)[::-1]
    buffer = Buffer(content)
    assert (buffer.array == content).all()
    assert buffer.array.strides == content.strides
    expanded = Buffer(np.broadcast_to(np.arange(3.0), (5, 3)))
    assert expanded.array.strides == (0, 8)


@pytest.mark.parametrize(
    ("body", "words"),
    [
        ("problem.out[i] = problem.x[i + (i == 255)]; }", None),
        ("SHARED(float, row, 64); row[t] = 0; problem.out[i] = row[t + (t == 63)]; }", "AddressSanitizer"),
        ("const int far = 2147483647 - 255 + t; problem.out[i] = static_cast<float>(far + i); }", "signed integer"),
        ("float few[4] = {0}; few[i % 8] = problem.x[i]; problem.out[i] = few[0]; }", "out of bounds"),
    ],
    ids=["clean-until-the-guard", "shared", "overflow", "local"],
)
def test_sanitizers_see_what_guards_cannot(body, words, tmp_path):
    library = build(HEAD + body, "kernel", "Problem", sanitize=True)
    program = f"""
import numpy as np
from emulate import Buffer, run
x, out = Buffer(np.zeros(256, np.float32)), Buffer(np.zeros(256, np.float32))
argument = np.array([(x.array.ctypes.data, out.array.ctypes.data, 256)], {ARGUMENT.descr})
run({str(library)!r}, argument, (4, 1, 1), (64, 1, 1))
"""
    done = run_sanitized(program, tmp_path)
    if words is None:
        assert done.returncode == 0, done.stderr
    else:
        assert done.returncode != 0
        assert words in done.stderr
