"""What the CUDA kernels cost, read from their machine code: no GPU is needed.

For the loop that goes down the rows: instructions, floating-point instructions and words of shared memory for every
pixel of every channel (px·ch), with the columns at a strip's edges that are computed twice, but not the rows at a
segment's ends; bytes of DRAM; and three bounds in ps/px·ch on two GPUs: of issuing, of shared memory, of DRAM. What
depends on a row's number is the mean over all numbers; under a mask, no window is computed again by the definition.
"""

from __future__ import annotations

import itertools
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from fastssim.cuda.geometry import march_group
from fastssim.cuda.shipped import instances

if TYPE_CHECKING:
    from collections.abc import Iterator

    from fastssim.cuda.instances import Instance

ARITHMETIC = ("FFMA", "FADD", "FMUL", "DFMA", "DADD", "DMUL")
_BYTES = {"float": 4, "double": 8, "Half": 2, "BFloat": 2, "unsigned char": 1, "unsigned short": 2}


@dataclass(frozen=True)
class Gpu:
    """Published limits of a GPU."""

    name: str
    multiprocessors: int
    clock: float  # Hz, sustained
    dram: float  # bytes a second
    shared: int  # bytes of shared memory of a multiprocessor
    warps: int  # of a multiprocessor, at most
    doubles: int  # float64 instructions of a multiprocessor and cycle


GPUS = (
    Gpu("H100", 132, 1.755e9, 3.35e12, 228 * 1024, 64, 64),
    Gpu("RTX 4090", 128, 2.52e9, 1.008e12, 100 * 1024, 48, 2),
)


@dataclass(frozen=True)
class Compiled:
    """Machine code of one instance for one architecture."""

    cubin: bytes
    registers: int
    shared: int  # bytes
    spilled: int  # bytes


@dataclass(frozen=True)
class Cost:
    """Per px·ch."""

    instructions: float
    arithmetic: float
    words: float  # of shared memory


def compile_instance(instance: Instance, architecture: str) -> Compiled:
    """Compile as CuPy does, without a GPU or driver.

    Raises
    ------
    RuntimeError
        With the compiler's messages.
    """
    return compile_text(instance.text, instance.name, architecture, "-ftz=true")


def compile_text(text: str, name: str, architecture: str, *more: str, expression: str = "") -> Compiled:
    """Compile CUDA text, and the kernel template that `expression` names, with `more` options.

    Raises
    ------
    RuntimeError
        With the compiler's messages.
    """
    from cuda.bindings import nvrtc  # noqa: PLC0415  # an extra

    _, program = nvrtc.nvrtcCreateProgram(text.encode(), b"kernel.cu", 0, [], [])
    if expression:
        nvrtc.nvrtcAddNameExpression(program, expression.encode())
    options = [option.encode() for option in ("-std=c++17", "--ptxas-options=-v", f"-arch={architecture}", *more)]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    _, size = nvrtc.nvrtcGetProgramLogSize(program)
    log = bytearray(size)
    nvrtc.nvrtcGetProgramLog(program, log)
    messages = log.decode()
    if status != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        raise RuntimeError(f"{name} for {architecture}:\n{messages}")
    _, size = nvrtc.nvrtcGetCUBINSize(program)
    cubin = bytearray(size)
    nvrtc.nvrtcGetCUBIN(program, cubin)
    nvrtc.nvrtcDestroyProgram(program)

    def number(pattern: str) -> int:
        found = re.search(pattern, messages)
        return int(found.group(1)) if found else 0

    return Compiled(
        bytes(cubin), number(r"Used (\d+) registers"), number(r"(\d+) bytes smem"), number(r"(\d+) bytes spill stores")
    )


def disassemble(cubin: bytes) -> tuple[list[str], dict[str, int]]:
    """Return the instructions, and where each label stands."""
    from cuda.pathfinder import find_nvidia_binary_utility  # noqa: PLC0415  # an extra

    program = find_nvidia_binary_utility("nvdisasm")
    if program is None:
        raise RuntimeError("nvdisasm is not installed: pip install nvidia-cuda-nvdisasm")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        done = subprocess.run([program, "-c", path], capture_output=True, text=True, check=True)  # noqa: S603  # found above
    code: list[str] = []
    labels: dict[str, int] = {}
    for line in done.stdout.splitlines():
        if label := re.match(r"(\.L_\w+):", line):
            labels[label.group(1)] = len(code)
        elif instruction := re.match(r"\s+/\*[0-9a-f]{4,}\*/\s+(.*?)\s*;", line):
            code.append(instruction.group(1))
    return code, labels


def _jumps(code: list[str], labels: dict[str, int]) -> dict[int, int]:
    """Return where each jump leads."""
    return {i: labels[m.group(1)] for i, line in enumerate(code) if (m := re.search(r"BRA.*`\((\.L_\w+)\)", line))}


def longest_loop(code: list[str], labels: dict[str, int]) -> tuple[int, int]:
    """Return the first and the last instruction of the longest loop."""
    backward = [(to, at) for at, to in _jumps(code, labels).items() if to < at]
    return max(backward, key=lambda loop: loop[1] - loop[0])


def march_loop(code: list[str], labels: dict[str, int], group: int) -> list[tuple[list[str], float]]:
    """Return the basic blocks of the longest loop, each with the share of all rows that run it.

    The way down has a case for each row number modulo `group`, and all cases lead to one place: each path there has an
    equal share. What adds up in float64, or gives a pivot to the next group, runs in one row of `group`. What lies in a
    loop within the loop hardly ever runs.

    Raises
    ------
    RuntimeError
        Where the machine code has not as many cases.
    """
    start, end = longest_loop(code, labels)
    jumps = {at: to for at, to in _jumps(code, labels).items() if start <= at <= end}
    inner = [(to, at) for at, to in jumps.items() if start < to <= at < end]
    edges = {start, end + 1, *(at + 1 for at in jumps), *(at for at in labels.values() if start <= at <= end)}
    blocks = list(itertools.pairwise(sorted(edges)))

    def leads_to(begin: int, behind: int) -> list[int]:
        last = behind - 1
        there = [jumps[last]] if last in jumps and jumps[last] > begin else []
        return there if last in jumps and not code[last].startswith("@") else [*there, behind]

    share = {begin: 0.0 if any(to <= begin <= at for to, at in inner) else 1.0 for begin, _ in blocks}
    for begin, behind in blocks:
        if any(line.startswith("F2F.F64") for line in code[begin:behind]):
            share[begin] /= group
    joins = Counter(to for at, to in jumps.items() if to > at and not code[at].startswith("@"))
    if group > 1:
        join = min(joins, key=lambda at: (-joins[at], at), default=end)
        paths = {join: 1}
        for begin, behind in reversed(blocks):
            if begin < join:
                paths[begin] = sum(paths.get(next_, 0) for next_ in leads_to(begin, behind))
        root = max((begin for begin, count in paths.items() if count == group), default=end)
        if root == end:
            raise RuntimeError(f"the loop has no place from where {group} ways lead to one")
        share.update({begin: 0.0 for begin, _ in blocks if root < begin < join})
        for begin, behind in blocks:
            if root <= begin < join:
                for next_ in leads_to(begin, behind):
                    if next_ < join:
                        share[next_] += share[begin] * paths[next_] / paths[begin]
    return [(code[begin:behind], share[begin]) for begin, behind in blocks]


def operation(line: str) -> str:
    """Name of an instruction, without its predicate."""
    return re.sub(r"^@!?U?P\w+ ", "", line).split()[0]


def words(name: str) -> int:
    """Words of shared memory that a thread moves in one instruction."""
    name, *suffixes = name.split(".")
    if name == "SHFL":
        return 1
    if name not in ("LDS", "STS"):
        return 0
    return 4 if "128" in suffixes else 2 if "64" in suffixes else 1


def cost(instance: Instance, compiled: Compiled) -> Cost:
    """Count the loop of a march."""
    counts = dict.fromkeys(("instructions", "arithmetic", "words"), 0.0)
    for block, share in march_loop(*disassemble(compiled.cubin), march_group(instance)):
        operations = [operation(line) for line in block]
        counts["instructions"] += share * len(operations)
        counts["arithmetic"] += share * sum(name.split(".")[0] in ARITHMETIC for name in operations)
        counts["words"] += share * sum(map(words, operations))
    computed = instance["THREADS"] * instance["COLUMNS"]
    owned = computed - (instance["TAPS_X"] - 1 if instance["GRADIENTS"] else 0)
    scale = computed / owned / instance["COLUMNS"]
    return Cost(**{name: scale * count for name, count in counts.items()})


def warps(threads: int, compiled: Compiled, gpu: Gpu) -> int:
    """Warps that a multiprocessor holds, for blocks of `threads`."""
    per_block = threads // 32
    by_registers = 65536 // (-(-compiled.registers // 8) * 8 * 32) // per_block
    by_shared = gpu.shared // (compiled.shared + 1024)
    return per_block * min(by_registers, by_shared, gpu.warps // per_block)


def moved(instance: Instance) -> float:
    """Bytes of DRAM per px·ch: images, mask and upstream gradient read, map, gradients and halves written."""
    masks: int = instance["MASKED"]
    others: int = instance["GRADIENTS"] + instance["MAP"] + instance["UPSTREAM"]
    images = _BYTES[instance["X"]] + _BYTES[instance["Y"]]
    halves: float = _BYTES[instance["T"]] * instance["HALVED"] / 2  # a quarter of each image
    return images + _BYTES[instance["W"]] * masks + _BYTES[instance["T"]] * others + halves


def ms_ssim_moved(scales: int = 5, gradients: int = 1) -> float:
    """Bytes of DRAM per px·ch of a step of MS-SSIM, float32, forward and backward.

    Every march reads two images and writes the gradients, and half images but at the last scale; the gradients of all
    scales are read once more and the finest written, by `deliver.cu`.
    """
    pixels = [0.25**scale for scale in range(scales)]
    marches = sum(pixels) * (8 + 4 * gradients) + sum(pixels[:-1]) * 2
    delivered = gradients * (4 * sum(pixels) + 4)
    return marches + delivered


def bounds(instance: Instance, counted: Cost, gpu: Gpu) -> dict[str, float]:
    """Least ps/px·ch that issuing, shared memory and DRAM allow."""
    return least(counted, moved(instance), gpu.doubles if instance["T"] == "double" else 128, gpu)


def least(counted: Cost, moved_bytes: float, rate: int, gpu: Gpu) -> dict[str, float]:
    """Return the same where a multiprocessor takes arithmetic for `rate` threads a cycle; it issues for 128."""
    to_ps = 1e12 / (gpu.multiprocessors * gpu.clock)
    issue = max(counted.instructions / 128, counted.arithmetic / rate)
    return {"issue": issue * to_ps, "shared": counted.words / 32 * to_ps, "DRAM": 1e12 * moved_bytes / gpu.dram}


def report(architecture: str = "sm_90") -> str:
    """Return a Markdown table of all marches that ship."""
    heads = ["kernel", "registers", "instructions", "arithmetic", "words", "bytes"]
    for gpu in GPUS:
        heads += [f"{gpu.name}: warps", "issue", "shared", "DRAM"]
    lines = [f"| {' | '.join(heads)} |", "| --- |" + " ---: |" * (len(heads) - 1)]
    lines += [_row(line) for line in _ours(architecture)]
    lines += _peer_rows(architecture)
    return "\n".join(lines)


def rows(architecture: str) -> list[dict[str, Any]]:
    """Return the same as rows of `bench.results`."""
    lines = {"fastssim": _ours(architecture), "frame-analytics": _theirs(architecture)}
    return [
        {
            "case": line.name, "kind": f"machine code for {architecture}, of a pixel and channel", "peer": peer,
            "version": version(peer), "registers": line.compiled.registers,
            **{name: round(number, 1) for name, number in asdict(line.counted).items()},
            "bytes_per_pixel": line.moved,
            **{
                f"{gpu.name}, {name}": round(number, 1)
                for gpu, (held, bound) in zip(GPUS, line.limits, strict=True)
                for name, number in {"warps": held, **{f"{limit}, ps": ps for limit, ps in bound.items()}}.items()
            },
        }
        for peer, found in lines.items()
        for line in found
    ]  # fmt: skip


class _Line(NamedTuple):
    """What is known of one kernel."""

    name: str
    compiled: Compiled
    counted: Cost
    moved: float  # bytes
    limits: list[tuple[int, dict[str, float]]]  # of each GPU: warps, and what bounds it


def _row(line: _Line) -> str:
    """One line of the table."""
    numbers = (line.counted.instructions, line.counted.arithmetic, line.counted.words, line.moved)
    cells = [line.name, str(line.compiled.registers), *(f"{number:.1f}" for number in numbers)]
    for held, bound in line.limits:
        cells += [str(held), *(f"{one:.1f}" for one in bound.values())]
    return f"| {' | '.join(cells)} |"


def _ours(architecture: str) -> Iterator[_Line]:
    """Compile all marches that ship."""
    for name, instance in instances().items():
        if instance.kernel == "march":
            compiled = compile_instance(instance, architecture)
            counted = cost(instance, compiled)
            limits = [(warps(instance["THREADS"], compiled, gpu), bounds(instance, counted, gpu)) for gpu in GPUS]
            yield _Line(name, compiled, counted, moved(instance), limits)


def _theirs(architecture: str) -> Iterator[_Line]:
    """Compile frame-analytics' kernels, where it is installed."""
    from bench import sass_peers  # noqa: PLC0415  # which needs this module

    text = sass_peers.source()
    if text is None:
        return
    for name, kernel in sass_peers.KERNELS.items():
        compiled = compile_text(text, name, architecture, expression=kernel.expression)
        counted = sass_peers.cost(kernel, compiled)
        limits = [(warps(sass_peers.THREADS, compiled, gpu), least(counted, kernel.moved, 128, gpu)) for gpu in GPUS]
        yield _Line(name, compiled, counted, kernel.moved, limits)


def _peer_rows(architecture: str) -> list[str]:
    """Return the others' lines, or that there are none."""
    return [_row(line) for line in _theirs(architecture)] or ["| frame-analytics: absent |"]


def main(architecture: str = "sm_90") -> None:
    """Print the table."""
    print(f"{__doc__}\nMachine code for {architecture}; instructions, words and ps per px·ch.\n")
    print(report(architecture))
    moves = [f"{ms_ssim_moved(gradients=gradients):.1f}" for gradients in (1, 2)]
    print(f"\nMS-SSIM of five scales, forward and backward: {moves[0]} bytes, to both images {moves[1]}.")
