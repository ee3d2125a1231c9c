"""Run every parity case below a folder against this package and print a line for each.

    python tests/parity/run.py FOLDER [--pending kind,kind] [--verbose]

A case is a folder with a `config.json` or `expected.*`; its kind is its name before `--`. The checker of a kind is
`kinds/KIND.py` with `compare(folder) -> Iterator[Comparison]`. Kinds on the pending list are reported and do not
fail; one that passes must leave the list. Exit code 1: a case failed, is of an unknown kind, or passes though it is
listed as pending. Exit code 2: no case was found.
"""

from __future__ import annotations

import argparse
import importlib.util
import pathlib
import sys
import traceback
from collections.abc import Callable, Iterator

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [] if str(HERE) in sys.path else [str(HERE)]

from comparison import Comparison  # noqa: E402

Compare = Callable[[pathlib.Path], Iterator[Comparison]]


def cases(folder: pathlib.Path) -> list[pathlib.Path]:
    """Folders with a config.json or expected.*, topmost only (a case may hold a pipeline with configs of its own)."""
    if (folder / "config.json").is_file() or any(folder.glob("expected.*")):
        return [folder]
    below = sorted(p for p in folder.iterdir() if p.is_dir())
    return [case for child in below for case in cases(child)]


def kind_of(case: pathlib.Path) -> str:
    return case.resolve().name.split("--")[0]


def checker(kind: str) -> Compare | None:
    path = HERE / "kinds" / f"{kind}.py"
    if not path.is_file():
        return None
    spec = importlib.util.spec_from_file_location(f"parity_{kind}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.compare


def read_pending(path: pathlib.Path = HERE / "pending.txt") -> set[str]:
    """One kind a line; `#` starts a comment."""
    lines = (line.split("#")[0].strip() for line in path.read_text().splitlines())
    return {line for line in lines if line}


def run_case(case: pathlib.Path, pending: set[str]) -> tuple[bool, str, list[Comparison]]:
    """Whether it is in order, the line to print, and what was compared."""
    kind, label = kind_of(case), f"{case.name:<32}"
    compare = checker(kind)
    if compare is None and kind in pending:
        return True, f"{label} PENDING (no checker yet)", []
    if compare is None:
        return False, f"{label} FAIL (unknown kind '{kind}': no kinds/{kind}.py, not pending)", []
    try:
        found = list(compare(case))
    except Exception as error:
        traceback.print_exc(file=sys.stderr)
        return kind in pending, f"{label} {verdict(False, kind, pending)} ({type(error).__name__}: {error})", []
    passed = bool(found) and all(c.passed for c in found)
    line = f"{label} {summary(found)}  {verdict(passed, kind, pending)}"
    return passed != (kind in pending), line, found


def verdict(passed: bool, kind: str, pending: set[str]) -> str:
    if kind in pending:
        return "FAIL (passes, but is on the pending list: take it off)" if passed else "PENDING"
    return "PASS" if passed else "FAIL"


def summary(found: list[Comparison]) -> str:
    if not found:
        return "nothing compared"
    absolute, relative = max(c.absolute for c in found), max(c.relative for c in found)
    tolerances = ", ".join(sorted({c.tolerance for c in found}))
    return f"{len(found):4d} compared  abs {absolute:.2e}  rel {relative:.2e}  tolerance [{tolerances}]"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--pending", help="kinds not yet begun, comma-separated (default: pending.txt beside this)")
    parser.add_argument("--verbose", action="store_true", help="print every comparison, not only those that fail")
    options = parser.parse_args(arguments)
    found = cases(options.folder) if options.folder.is_dir() else []
    if not found:
        print(f"no parity case in {options.folder}: expected folders with a config.json or expected.*")
        return 2
    pending = read_pending() if options.pending is None else {k for k in options.pending.split(",") if k}
    good = True
    for case in found:
        fine, line, comparisons = run_case(case, pending)
        print(line, flush=True)
        for c in comparisons:
            if options.verbose or not c.passed:
                print(
                    f"    {'ok  ' if c.passed else 'FAIL'} {c.what}: abs {c.absolute:.2e} rel {c.relative:.2e}"
                    f" ({c.tolerance})"
                )
        good &= fine
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
