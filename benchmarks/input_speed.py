"""Prepared samples a second: how fast NYU-v2's four tasks at 288 x 384 are read, changed at random and decoded.

    python benchmarks/input_speed.py                # random numbers in the prepared form, in a folder of their own

The ways are timed in turn, several rounds of them; the table holds medians and the range. A GPU converts samples
to float itself: 'converted elsewhere' is what the CPU has to do for it, but for the copy to the GPU. The last line
is what a thread that only copies the same bytes out of the mapped files reaches: the limit of the memory, or of
the disk.
"""

from __future__ import annotations

import argparse
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from ms_automl.data import Batch, Split, nyuv2
from ms_automl.data.cache import Arrays
from ms_automl.data.prepare import prepare
from ms_automl.data.prepared import Prepared, PreparedSplit

HEIGHT, WIDTH = 288, 384
BATCH = 16


class Noise:
    """NYU-v2's fields in its sizes, of random numbers."""

    name = "nyuv2"
    layout = "random numbers"

    def __init__(self, samples: int) -> None:
        self.arguments: Mapping[str, Any] = {"classes": 13, "height": HEIGHT, "width": WIDTH}
        self.parts: Mapping[str, Sequence[str]] = {"train": [str(i) for i in range(samples)], "test": ["0"]}

    def check(self, part: str, sample: str) -> Iterator[str]:
        """Nothing can be wrong."""
        return iter(())

    def read(self, part: str, sample: str) -> Arrays:
        """The fields of a sample."""
        rng = np.random.default_rng(int(sample))
        return {
            "image": rng.integers(0, 256, (HEIGHT, WIDTH, 3), dtype=np.uint8),
            "segmentation": rng.integers(0, 13, (HEIGHT, WIDTH), dtype=np.uint8),
            "depth": rng.integers(0, 9000, (HEIGHT, WIDTH), dtype=np.int16),
            "normals": rng.standard_normal((HEIGHT, WIDTH, 3), dtype=np.float32).astype(np.float16),
            "edges": rng.random((HEIGHT, WIDTH)) < 0.05,
        }


def rate(
    fetch: Callable[[torch.Tensor, int], object], samples: int, batches: int, seed: int
) -> tuple[float, float]:
    """Samples a second, by the clock and by the processor's time."""
    generator = torch.Generator().manual_seed(seed)
    chosen = [torch.randint(samples, (BATCH,), generator=generator) for _ in range(batches)]
    clock, busy = time.perf_counter(), time.process_time()
    for index, indices in enumerate(chosen):
        fetch(indices, index)
    return BATCH * batches / (time.perf_counter() - clock), BATCH * batches / (time.process_time() - busy)


def main() -> int:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=512)
    parser.add_argument("--batches", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=7)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        prepared = prepare(Noise(chosen.samples), Path(folder) / "ready")
        ways: dict[str, Callable[[torch.Tensor, int], object]] = {}
        for threads in (1, 2):
            train = nyuv2(0, Path(folder) / "ready", val=1, threads=threads).train
            assert isinstance(train, PreparedSplit)
            ways[f"as they are, {threads} threads"] = partial(as_they_are, train)
            ways[f"augmented, {threads} threads"] = train.augmented
            there = train.to(torch.device("meta"))  # which computes nothing: what is left is done before a GPU
            ways[f"augmented, {threads} threads, converted elsewhere"] = there.augmented
        ways["bytes copied, 1 thread"] = copier(prepared)
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for seed in range(chosen.rounds + 1):
            for name, fetch in ways.items():
                measured = rate(fetch, chosen.samples - 1, chosen.batches, seed)
                if seed:  # the first round warms up
                    found[name].append(measured)
    print(f"Python {platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} cores")
    print("| samples | a second (median, range) | a second of processor time (median) |")
    print("| --- | --- | --- |")
    for name, rates in found.items():
        clock, busy = zip(*rates, strict=True)
        middle = statistics.median(clock)
        print(f"| {name} | {middle:.0f} ({min(clock):.0f} to {max(clock):.0f}) | {statistics.median(busy):.0f} |")
    return 0


def as_they_are(split: Split, indices: torch.Tensor, seed: int) -> Batch:
    """Samples without augmentation."""
    return split.batch(indices)


def copier(prepared: Prepared) -> Callable[[torch.Tensor, int], object]:
    """Copies the stored bytes of samples and does nothing with them."""
    shards = prepared.fields("train")
    size = len(shards[0]["image"])

    def copy(indices: torch.Tensor, seed: int) -> None:
        for index in indices.tolist():
            for field in shards[index // size].values():
                np.array(field[index % size])

    return copy


if __name__ == "__main__":
    sys.exit(main())
