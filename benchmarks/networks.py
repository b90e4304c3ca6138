"""What becomes of every network of the zoo (tests/zoo): groups, a training, compaction, files.

    python benchmarks/networks.py --json benchmarks/networks.jsonl [--only NAME,...] [--patterns 20]

A line for each network is appended to the file; those that are there are left out. docs/networks.md is written
from it (benchmarks/documents.py).
"""

from __future__ import annotations

import argparse
import sys
from dataclasses import asdict
from pathlib import Path

import torch
from rows import append_row, read_rows

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.zoo.conformance import conform
from tests.zoo.zoo import EXPECTED, ZOO


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True, help="append the figures to this file, a line each")
    parser.add_argument("--only", default="", help="names, by commas")
    parser.add_argument("--patterns", type=int, default=20, help="of zeros, for each network")
    args = parser.parse_args()
    torch.set_num_threads(1)
    done = {row["name"] for row in read_rows(args.json)}
    for name in args.only.split(",") if args.only else ZOO:
        if name in done:
            continue
        network = ZOO[name]
        row = conform(name, network.build, network.side, args.patterns, onnx=True)
        line = asdict(row) | {"source": network.source, "served": row.served, "patterns": args.patterns}
        append_row(args.json, line | {"known": EXPECTED.get(name, "")})
        print(f"{name:28} {row.served:8} {row.grouping:14} {row.seconds:.1f} s", flush=True)


if __name__ == "__main__":
    main()
