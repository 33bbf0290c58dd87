"""``python -m bench ssim`` measures; ``python -m bench docs`` writes `docs/benchmarks.md` from `bench/results`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

import torch

from bench import results, sass, ssim
from bench.peers import PEERS

ROOT = Path(__file__).resolve().parent.parent
NAMES = tuple(peer.name for peer in PEERS)


def main(words: list[str] | None = None) -> None:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.replace("`", ""))
    commands = parser.add_subparsers(dest="command", required=True)
    measure = commands.add_parser("ssim", help="mean SSIM, forward and with its gradient, on the CPU")
    measure.add_argument("--peers", default=",".join(NAMES), help=f"libraries, separated by commas: {', '.join(NAMES)}")
    measure.add_argument("--quick", action="store_true", help="leave out the largest images")
    measure.add_argument("--rounds", type=int, default=15, help="samples of each measurement")
    measure.add_argument("--threads", type=int, help="as torch.set_num_threads; by default what torch chose")
    measure.add_argument("--out", type=Path, help="folder for ssim.json; by default the table is printed only")
    machine_code = commands.add_parser("sass", help="what the CUDA kernels cost, from their machine code; needs no GPU")
    machine_code.add_argument("--arch", default="sm_90", help="architecture; by default sm_90, the H100")
    commands.add_parser("docs", help="write docs/benchmarks.md from bench/results/*.json")
    given = parser.parse_args(words)
    if given.command == "docs":
        _write_page()
        return
    if given.command == "sass":
        sass.main(given.arch)
        return
    peers = [name.strip() for name in given.peers.split(",")]
    unknown = sorted(set(peers) - set(NAMES))
    if unknown:
        parser.error(f"no peer is named {', '.join(unknown)}; there are {', '.join(NAMES)}")
    if given.rounds < 1:
        parser.error(f"--rounds is {given.rounds}; give at least 1")
    if given.threads is not None:
        if given.threads < 1:
            parser.error(f"--threads is {given.threads}; give at least 1")
        torch.set_num_threads(given.threads)
    measured = ssim.run(
        peers, quick=given.quick, rounds=given.rounds, announce=lambda line: print(line, file=sys.stderr)
    )
    content = {**results.describe(), "suite": "ssim", **measured}
    print(results.markdown([("this run", content)]))
    if given.out is not None:
        results.write(given.out / "ssim.json", content)
        print(f"results: {given.out / 'ssim.json'}", file=sys.stderr)


def _write_page() -> None:
    """Write the page of all committed results."""
    files = sorted((ROOT / "bench" / "results").glob("*.json"))
    found = [(f"bench/results/{path.name}", json.loads(path.read_text(encoding="utf-8"))) for path in files]
    page = ROOT / "docs" / "benchmarks.md"
    page.parent.mkdir(exist_ok=True)
    page.write_text(results.markdown(found), encoding="utf-8")
    print(page)


if __name__ == "__main__":
    main()
