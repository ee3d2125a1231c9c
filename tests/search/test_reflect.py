"""Reflection: what is drawn again, what stays, and that only better pictures are kept."""

import pytest
import torch
from searchers import PROMPTS, SEEDS, Judge, drained, joined, redness
from small import tiny_flow, tiny_masked

from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.generators.unmasking import MASK, SAMPLERS, cosine_times
from tastemaker.protocols import Condition, Plan, Prompt
from tastemaker.sampling import finish
from tastemaker.search import parm, reflect

PLAN = Plan(SAMPLERS["confidence"], cosine_times(6))


class Critic(Judge):
    """Finds the left half of every picture at fault, and the prompt's last word."""

    def __init__(self):
        super().__init__(potential=lambda images: torch.ones(len(images)))

    def critique(self, images, prompts):
        return [f"there is no {p.text.split()[-1]}" for p in prompts]

    def faults(self, images, prompts):
        grid = torch.zeros(len(images), 2, 2)
        grid[:, :, 0] = 0.9
        return grid


@pytest.mark.parametrize("way", reflect.WAYS)
def test_a_picture_is_replaced_only_by_a_better_one(way):
    config = reflect.Config(2, 3, way, accept=1e9)
    found, ledger = drained(reflect.search, tiny_masked(), Critic(), config, PLAN)
    assert ledger.paths == 3 * (2 + 3)
    looks = sum(len(path) for f in found for one in f.looks for path in one[:2])
    told = len(reflect.NEEDS[way]) + (way == "remask")  # where regions are asked for, the critique is too
    told, said = told * 3 * 3, "drawn again" if way == "redraw" else "there is no"
    assert ledger.verifier_calls == told + 6 + 9 + looks + sum(
        "potential" in look.words for f in found for one in f.looks for p in one[:2] for look in p
    )
    scores, chosen, images = (joined(found, f) for f in ("scores", "chosen", "images"))
    assert scores.shape == (3, 5) and not scores.isnan().any() and (chosen >= 2).any()
    torch.testing.assert_close(redness(images), scores.max(1).values, rtol=0, atol=1e-4)
    torch.testing.assert_close(scores.gather(1, chosen[:, None])[:, 0], scores.max(1).values)
    for lines in (lines for f in found for lines in f.looks):
        last = [line[-1].words for line in lines[2:]]
        assert all(said in words for words in last) and ledger.evaluations_after_pruning == 0
    kept = [one for f in found for row in f.redrawn for one in row]
    assert kept and all(one.critique == "" if way == "redraw" else said in one.critique for one in kept)
    for row, last, values in zip((r for f in found for r in f.redrawn), chosen.tolist(), scores):
        places = [place for one in row for place in (one.before, one.after)]
        assert places[1:-1:2] == places[2::2] and (not row or places[-1] == last)  # each goes on from the one before
        assert all(values[one.after] > values[one.before] for one in row)
    for one in kept:
        anywhere = way in ("redraw", "rewrite")
        assert (one.regions is None) == anywhere
        assert anywhere or one.regions.tolist() == [[True, True, False, False]] * 4
    whole, _ = drained(parm.search, tiny_masked(), Critic(), parm.Config(2), PLAN)
    torch.testing.assert_close(joined(whole, "scores"), scores[:, :2])


def test_what_is_accepted_or_has_no_score_is_left_as_it_is():
    for accept in (-1e9, float("nan")):
        found, ledger = drained(reflect.search, tiny_masked(), Critic(), reflect.Config(2, accept=accept), PLAN)
        assert joined(found, "scores")[:, 2:].isnan().all() and ledger.network_evaluations == 6 * 6


def test_a_redrawn_picture_without_a_score_is_not_kept():
    class Once(Critic):
        def score(self, images, prompts):
            self.asked = getattr(self, "asked", 0) + 1
            return redness(images) if self.asked == 1 else torch.full((len(images),), float("nan"))

    found, ledger = drained(reflect.search, tiny_masked(), Once(), reflect.Config(2, 2, accept=1e9), PLAN)
    assert joined(found, "chosen").max() < 2 and ledger.unanswered == {"no reason given": 6}


@pytest.mark.parametrize("sampler", SAMPLERS.values(), ids=SAMPLERS)
def test_only_masked_tokens_change_and_only_their_steps_are_taken(sampler):
    generator, plan = tiny_masked(), Plan(sampler, cosine_times(6))
    tokens = finish(generator, generator.start(Condition.of(PROMPTS[:1]), torch.tensor([3]), plan)).x
    state = generator.start(Condition.of(PROMPTS[:1]), torch.tensor([4]), plan)
    for share in (1, 4, 8, 16):
        mask = torch.randperm(16, generator=torch.Generator().manual_seed(share))[None] < share
        begun = reflect.masked_again(state, tokens, mask)
        assert torch.equal(begun.x == MASK, mask) and torch.equal(begun.x[~mask], tokens[~mask])
        while not begun.done.all():
            before = int((begun.x == MASK).sum())
            begun = reflect.known_again(generator.advance(begun), tokens, mask)
            assert not (begun.x == MASK)[~mask].any() and int((begun.x == MASK).sum()) <= before
        assert torch.equal(begun.x[~mask], tokens[~mask]) and (begun.x != MASK).all()
    fresh = reflect.masked_again(state, tokens, torch.ones(1, 16, dtype=torch.bool))
    assert int(fresh.step) == 0
    assert int(reflect.masked_again(state, tokens, mask=torch.arange(16)[None] == 5).step) >= 4


def test_regions_are_the_likeliest_faults():
    faults = torch.tensor([[[0.9, 0.6], [0.55, 0.1]], [[0.1, 0.2], [0.3, 0.05]], [[float("nan")] * 2] * 2])
    assert reflect.regions(faults, 4, 0.5, 1.0).tolist() == [
        [True, True, True, False],
        [False, False, True, False],
        [True, False, False, False],
    ]
    assert reflect.regions(faults, 4, 0.5, 0.5)[0].tolist() == [True, True, False, False]
    wide = reflect.regions(faults[:1], 16, 0.5, 1.0).reshape(4, 4)
    assert wide[0, 0] and not wide[3, 3]


def test_what_is_at_fault_is_filled_in_by_the_prompt_and_the_reason():
    """`correct` is `remask` with the words that the critique names in the prompt, and the same noise."""
    drawn = {}
    for way in ("remask", "correct"):
        generator, asked = tiny_masked(), []
        encode = generator.encode_text
        generator.encode_text = lambda c, e=encode, a=asked: a.extend(p.text for p in c.prompts) or e(c)
        found, _ = drained(reflect.search, generator, Critic(), reflect.Config(1, 1, way, accept=1e9), PLAN)
        drawn[way] = {text for text in asked if text}
    said_again = {f"{p.text} {p.text.split()[-1]}" for p in PROMPTS}
    assert drawn["correct"] - drawn["remask"] == said_again


def test_a_redraw_asks_for_the_same_and_needs_no_critic():
    class Silent(Critic):
        critique = faults = None

    texts, generator = [], tiny_masked()
    encode = generator.encode_text
    generator.encode_text = lambda c: texts.extend(p.text for p in c.prompts) or encode(c)
    config = reflect.Config(1, 2, "redraw", accept=1e9)
    found, _ = drained(reflect.search, generator, Silent(), config, PLAN)
    assert set(texts) - {""} == {p.text for p in PROMPTS}
    scores = joined(found, "scores")
    assert len({round(v, 5) for v in scores[0].tolist()}) == 3  # paths of their own


def test_words_that_the_critique_names_are_said_again():
    prompt = Prompt("a photo of a red cat and a dog")
    assert reflect.emphasised(prompt, "the cat is not red.").text == "a photo of a red cat and a dog red cat"
    assert reflect.emphasised(prompt, "something else") == prompt
    assert reflect.speaks(tiny_masked(), prompt) and not reflect.speaks(tiny_masked(), Prompt("a zebra"))


def test_a_prompt_that_the_generator_cannot_read_is_drawn_as_it_was():
    search = reflect.search

    def rewriting(*words):
        return search(*words, rewrite=lambda prompt, critique: Prompt("a zebra"))

    config = reflect.Config(1, 1, "rewrite", accept=1e9)
    found, _ = drained(rewriting, tiny_masked(), Critic(), config, PLAN, 1.0, PROMPTS[:1], SEEDS[:1])
    assert not joined(found, "scores").isnan().any()


def test_what_cannot_be_is_refused():
    for generator, verifier, way, sentence in (
        (tiny_masked(), Judge(), "remask", "has no `faults`"),
        (tiny_masked(), Judge(), "rewrite", "has no `critique`"),
        (tiny_flow(), Critic(), "remask", "masked-token generator"),
        (tiny_flow(), Critic(), "correct", "way=correct needs a masked-token generator"),
    ):
        with pytest.raises(TastemakerError, match=sentence):
            drained(reflect.search, generator, verifier, reflect.Config(1, 1, way))
    with pytest.raises(UnknownName, match="way to draw again"):
        reflect.Config(way="wish")
