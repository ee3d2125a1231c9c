"""Every command and every setting stands in the docs, with a sentence of its own."""

from pathlib import Path

import pytest

from tastemaker.cli.options import AlgorithmCommand
from tastemaker.cli.reference import commands, reference
from tastemaker.cli.settings import settings_of

DOCS = Path(__file__).resolve().parent.parent / "docs"
COMMANDS = dict(commands())


def test_the_reference_is_up_to_date():
    assert (DOCS / "reference.md").read_text() == reference(), "run `make reference` and commit docs/reference.md"


@pytest.mark.parametrize("words", COMMANDS)
def test_every_command_and_option_says_what_it_is_for(words):
    command = COMMANDS[words]
    assert len(command.help or "") > 20
    assert [p.name for p in command.params if p.name != "help" and not p.help] == []


@pytest.mark.parametrize(
    "name", [getattr(c, "algorithm", c.name) for c in COMMANDS.values() if isinstance(c, AlgorithmCommand)]
)
def test_every_setting_has_its_sentence(name):
    found = settings_of(name)
    assert len(found) > 2 and [s.name for s in found if len(s.sentence) < 5] == []
