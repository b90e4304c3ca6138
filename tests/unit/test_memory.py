"""Memory that is freed stays with the process."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import torch
from ms_automl.memory import keep_freed

def touched():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.empty(2**24).fill_(1.0)  # 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

if sys.argv[1] == "kept":
    keep_freed()
for _ in range(8):  # what lies between two blocks may keep them from being joined at first
    touched()
print(sum(touched() for _ in range(4)))
"""


def faults(how: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_a_block_that_was_freed_is_used_again_without_asking_the_system() -> None:
    pages = 4 * 2**26 // 4096
    assert faults("given back") > pages / 2
    assert faults("kept") < pages / 100
