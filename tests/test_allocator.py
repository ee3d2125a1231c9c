"""Freed memory stays in the process where the C library lets it."""

import subprocess
import sys

import pytest

WORK = """
import resource, sys
import numpy as np
from tastemaker.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(200):
    np.ones((3, 1_000_000))  # 24 MB, freed at once
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    done = subprocess.run([sys.executable, "-c", WORK, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only glibc can be told")
def test_large_blocks_are_paged_in_once():
    assert faults("keep") < faults("leave") / 2
