"""How long `tastemaker --help` takes, and that it imports no torch: python -m benchmarks.help_seconds

The median of nine runs in processes of their own. Row written: help_seconds, beside a python that does nothing.
Exit code 1 where torch was imported.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

from benchmarks.rows import write

HELP = "import sys; sys.argv = ['tastemaker', '--help']; from tastemaker.cli.main import main; code = main()"
RUNS = 9


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout


def seconds(code: str) -> float:
    began = time.perf_counter()
    run(code)
    return time.perf_counter() - began


def main() -> int:
    run(HELP)
    ours, other = (
        statistics.median(column) for column in zip(*((seconds(HELP), seconds("pass")) for _ in range(RUNS)))
    )
    torch_free = run(f"{HELP}; print('torch' in sys.modules)").strip().endswith("False")
    write(
        name="help_seconds",
        ours=ours,
        other=other,
        other_is="python -c pass",
        ratio=ours / other,
        target="<= 0.5 s, no torch",
        unit="s",
        command="python -m benchmarks.help_seconds",
    )
    print("torch was not imported" if torch_free else "torch was imported")
    return 0 if torch_free else 1


if __name__ == "__main__":
    sys.exit(main())
