"""The parity runner's own promises: what passes, what fails, what is pending."""

import math
import pathlib

import pytest
import run as runner
from comparison import close, equal


@pytest.fixture
def kinds(tmp_path, monkeypatch):
    """A runner with checkers of its own: `good` passes, `bad` is off by 0.5, `empty` compares nothing."""
    (tmp_path / "kinds").mkdir()
    head = "from comparison import close\ndef compare(folder):\n    "
    (tmp_path / "kinds" / "good.py").write_text(head + "yield close('x', 1.0, 1.0)\n")
    (tmp_path / "kinds" / "bad.py").write_text(head + "yield close('x', 1.5, 1.0, atol=0.1)\n")
    (tmp_path / "kinds" / "empty.py").write_text(head + "return iter(())\n")
    (tmp_path / "kinds" / "broken.py").write_text(head + "raise KeyError('lost')\n")
    monkeypatch.setattr(runner, "HERE", tmp_path)

    def case(*names: str) -> pathlib.Path:
        for name in names:
            (tmp_path / "cases" / name).mkdir(parents=True, exist_ok=True)
            (tmp_path / "cases" / name / "config.json").write_text("{}")
        return tmp_path / "cases"

    return case


@pytest.mark.parametrize(
    "name, pending, code, words",
    [
        ("good", "", 0, "PASS"),
        ("good--other-seed", "", 0, "PASS"),
        ("good", "good", 1, "take it off"),
        ("bad", "", 1, "FAIL"),
        ("bad", "bad", 0, "PENDING"),
        ("broken", "", 1, "KeyError"),
        ("broken", "broken", 0, "PENDING"),
        ("empty", "", 1, "nothing compared"),
        ("novel", "", 1, "unknown kind 'novel'"),
        ("novel", "novel", 0, "PENDING"),
    ],
)
def test_each_case_gets_a_line_and_the_exit_code_follows(kinds, capsys, name, pending, code, words):
    assert runner.main([str(kinds(name)), "--pending", pending]) == code
    assert words in capsys.readouterr().out.splitlines()[0]


def test_one_bad_case_among_good_ones_fails_the_run_and_all_are_printed(kinds, capsys):
    assert runner.main([str(kinds("bad", "good", "good--b")), "--pending", ""]) == 1
    assert sum("compared" in line for line in capsys.readouterr().out.splitlines()) == 3


def test_a_single_case_and_an_empty_folder(kinds, tmp_path, capsys):
    assert runner.main([str(kinds("good") / "good"), "--pending", ""]) == 0
    (tmp_path / "nothing").mkdir()
    assert runner.main([str(tmp_path / "nothing"), "--pending", ""]) == 2
    assert runner.main([str(tmp_path / "absent"), "--pending", ""]) == 2


def test_a_pipeline_inside_a_case_is_no_case_of_its_own(kinds):
    folder = kinds("good", "good/pipeline")
    assert [c.name for c in runner.cases(folder)] == ["good"]


def test_a_case_may_do_without_a_configuration(tmp_path):
    (tmp_path / "cases" / "plain").mkdir(parents=True)
    (tmp_path / "cases" / "plain" / "expected.json").write_text("{}")
    assert [c.name for c in runner.cases(tmp_path)] == ["plain"]


def test_kinds_whose_work_is_done_are_not_pending():
    assert not {"frechet", "sit_forward", "sit_ode", "repa", "jit", "rae_ddt"} & runner.read_pending()


def test_close_measures_and_judges():
    c = close("x", [1.0, 2.1], [1.0, 2.0], atol=0.05)
    assert (
        not c.passed and math.isclose(c.absolute, 0.1, rel_tol=1e-9) and math.isclose(c.relative, 0.05, rel_tol=1e-9)
    )
    assert close("x", [1.0, 2.1], [1.0, 2.0], rtol=0.06).passed
    assert close("x", [math.nan, math.inf], [math.nan, math.inf]).passed
    assert not close("x", [math.nan], [1.0], atol=9.0).passed
    assert not close("x", [math.inf], [-math.inf], atol=9.0).passed
    assert not close("x", [[1.0]], [1.0], atol=9.0).passed
    assert equal("ids", [1, 2], [1, 2]).passed and not equal("ids", [1, 2], [2, 1]).passed
