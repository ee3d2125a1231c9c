"""Freed memory stays in the process where the C library lets it."""

import subprocess
import sys

WORK = """
import resource, sys
import numpy as np
from tastemaker.allocator import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()
def step():
    blocks = [np.ones(3_500_000) for _ in range(8)]  # 8 times 28 MB, freed together
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(how):
    done = subprocess.run([sys.executable, "-c", WORK, how], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_a_step_does_not_page_in_what_the_step_before_freed():
    kept, given_back = faults("keep"), faults("leave")
    assert kept < given_back / 2, (kept, given_back)
