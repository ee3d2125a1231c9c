"""Prompts of the embedded world: six tasks, words and specs that say the same, all from a seed."""

from collections import Counter

import pytest
from scipy import stats

from tastemaker.data.prompts import validate_spec
from tastemaker.encoders.words import split_words
from tastemaker.errors import TastemakerError
from tastemaker.object_rules import RELATIONS
from tastemaker.world.grammar import (
    COLORS,
    NUMBERS,
    OBJECTS,
    PLURALS,
    TASKS,
    article,
    evaluation_prompts,
    even_prompts,
    prompt_of,
    spec_of,
    swapped,
    vocabulary,
)

SINGULAR = {plural: name for name, plural in PLURALS.items()} | {name: name for name in OBJECTS}
COUNTS = {word: number for number, word in NUMBERS.items()} | {"a": 1, "an": 1}


def read_phrase(words):
    """A phrase back to a clause, written apart from the grammar."""
    found = {"class": SINGULAR[words[-1]], "count": COUNTS[words[0]]}
    return found | ({"color": words[1]} if len(words) == 3 else {})


def read_prompt(text):
    """A prompt back to its include clauses."""
    text = text.removeprefix("a photo of ")
    for relation in RELATIONS:
        if f" {relation} " in text:
            first, second = text.split(f" {relation} ")
            return [read_phrase(second.split()), read_phrase(first.split()) | {"position": [relation, 0]}]
    return [read_phrase(part.split()) for part in text.split(" and ")]


@pytest.mark.parametrize("task", TASKS)
def test_words_and_specs_say_the_same(task):
    for seed in range(1000):
        spec = spec_of(seed, task)
        validate_spec(spec)
        prompt = prompt_of(spec)
        assert spec["tag"] == task and prompt.spec == spec and read_prompt(prompt.text) == spec["include"], prompt
        assert spec == spec_of(seed, task)


def test_the_vocabulary_is_exactly_the_words_of_the_prompts():
    said = {w for seed in range(6000) for w in split_words(prompt_of(spec_of(seed)).text)}
    assert said == set(vocabulary()) and vocabulary() == sorted(vocabulary())
    assert max(len(split_words(prompt_of(spec_of(seed)).text)) for seed in range(6000)) <= 12


def test_tasks_objects_and_colours_come_evenly():
    specs = [spec_of(seed) for seed in range(12_000)]
    for counts in (
        Counter(s["tag"] for s in specs),
        Counter(c["class"] for s in specs for c in s["include"]),
        Counter(c["color"] for s in specs for c in s["include"] if "color" in c),
        Counter(c["position"][0] for s in specs for c in s["include"] if "position" in c),
        Counter(c["count"] for s in specs for c in s["include"] if s["tag"] == "counting"),
    ):
        assert stats.chisquare(list(counts.values())).pvalue > 1e-4, counts
    assert {len(TASKS), len(RELATIONS)} == {6, 4} and len(OBJECTS) == 18 and len(COLORS) == 8


def test_articles():
    assert (
        article("apple") == "an apple"
        and article("red apple") == "a red apple"
        and article("orange cat") == "an orange cat"
    )


def test_evaluation_prompts_are_distinct_and_grouped():
    prompts = evaluation_prompts(17)
    assert Counter(p.spec["tag"] for p in prompts) == dict.fromkeys(TASKS, 17)
    assert len({p.text for p in prompts}) == 102
    assert [p.spec["tag"] for p in prompts] == sorted((p.spec["tag"] for p in prompts), key=TASKS.index)
    assert evaluation_prompts(17) == prompts != evaluation_prompts(17, seed=1)
    assert len(evaluation_prompts(50)) == 18 + 50 * 5


def test_even_prompts_have_every_task_and_two_parts_without_common_words():
    apart = evaluation_prompts(30)
    train, last = even_prompts(120, 5, apart, 0.2)
    for part, count in ((train, 16), (last, 4)):
        assert [p.spec["tag"] for p in part] == [task for task in TASKS for _ in range(count)]
    words = [{p.text for p in part} for part in (train, last)]
    single = {p.text for p in apart if p.spec["tag"] == "single_object"}
    assert not words[0] & words[1] and not (words[0] | words[1]) & ({p.text for p in apart} - single)
    assert even_prompts(120, 5, apart, 0.2) == (train, last) != even_prompts(120, 6, apart, 0.2)
    many = [p.text for p in even_prompts(600, 5, apart)[0] if p.spec["tag"] == "counting"]
    assert len(many) == 100 and len(set(many)) == 24  # 54 there are
    with pytest.raises(TastemakerError, match="of the prompts of 'counting' are left out"):
        even_prompts(60, 5, evaluation_prompts(60), 0.2)


def test_a_swap_changes_one_fact_of_the_words():
    kinds = Counter()
    for seed in range(3000):
        spec = spec_of(seed)
        other = swapped(spec, seed)
        validate_spec(other)
        assert other == swapped(spec, seed) and spec == spec_of(seed)  # the spec itself is left alone
        assert (
            prompt_of(other).text != prompt_of(spec).text and read_prompt(prompt_of(other).text) == other["include"]
        )
        facts = [
            (i, fact) for i, (a, b) in enumerate(zip(spec["include"], other["include"]))
            for fact in {**a, **b} if a.get(fact) != b.get(fact)
        ]  # fmt: skip
        assert len(facts) == 1 or facts == [(0, "color"), (1, "color")]
        kinds[facts[0][1] if len(facts) == 1 else "both colors"] += 1
        if spec["tag"] == "counting":
            assert other["exclude"] == [{**other["include"][0], "count": other["include"][0]["count"] + 1}]
    assert set(kinds) == {"class", "count", "color", "position", "both colors"} and min(kinds.values()) > 50
