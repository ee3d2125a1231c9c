"""The command line: verbs, and what becomes of errors. Nothing heavy is imported before a command runs."""

from __future__ import annotations

import errno
import os
import sys
from collections.abc import Sequence

import typer

from ..allocator import keep_freed_memory
from ..errors import TastemakerError
from . import (
    annotate,
    demo,
    evaluate,
    models,
    report,
    sample,
    score,
    search,
    studio,
    train,
    train_judge,
    trajectories,
)

HEIRS = (train_judge, trajectories)  # importing them has added their commands to `train` and `search`

app = typer.Typer(
    name="tastemaker",
    help="Make image generators better with rewards, and prove it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
for verb in (demo, models, sample, score, studio, report):
    app.command(verb.NAME)(verb.run)
for group in (annotate, train, search, evaluate):
    app.add_typer(group.app, name=group.NAME)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command. Returns the exit code: 0, 2 for what the user can mend, 130 where it was interrupted."""
    keep_freed_memory()
    try:
        code = app(args=None if arguments is None else list(arguments), standalone_mode=False)
        return code if isinstance(code, int) else 0
    except (KeyboardInterrupt, typer.Abort):
        return 130
    except BrokenPipeError:  # the reader of a pipe has gone
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if type(error).__name__ == "NoArgsIsHelpError":
            error.show()  # type: ignore[attr-defined]
            return 0
        sentence = sentence_of(error)
        if sentence is None:
            raise
        print(f"error: {sentence}", file=sys.stderr)
        return 2


def sentence_of(error: Exception) -> str | None:
    """What to tell the user, or None where the mistake is ours."""
    if isinstance(error, TastemakerError):
        return str(error)
    if hasattr(error, "format_message"):  # of the argument parser
        text = error.format_message().rstrip(".")
        return f"{text} See --help" if text.endswith("?") else f"{text}. See --help"
    if not isinstance(error, OSError) or error.filename is None and error.errno != errno.ENOSPC:
        return None
    if isinstance(error, FileNotFoundError):
        return f"no such file or folder: {error.filename}"
    if isinstance(error, PermissionError):
        return f"no permission for {error.filename}; choose another folder or change its rights"
    if error.errno == errno.ENOSPC:
        return f"the disk is full: could not write {error.filename or 'a file'}. Free some space and try again"
    return f"{error.filename}: {os.strerror(error.errno or 0).lower()}"
