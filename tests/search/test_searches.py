"""Every search on flow and masked tokens: what it keeps, what it cuts off, and what the ledger says that it cost."""

import pytest
import torch
from searchers import PROMPTS, SEEDS, Judge, Scorer, chance, drained, joined, redness
from small import tiny_flow, tiny_masked

from tastemaker.errors import TastemakerError, UnknownName
from tastemaker.generators.flow import uniform_times
from tastemaker.generators.samplers import euler, sde
from tastemaker.generators.unmasking import cosine_times, random_order
from tastemaker.picture_bytes import from_bytes
from tastemaker.protocols import Condition, Plan
from tastemaker.records import Ledger
from tastemaker.sampling import finish, sample
from tastemaker.search import best_of_n, calibrate, draft, halving, noise, parm, particles, prm, threshold
from tastemaker.search.walk import redrawn, thinned, walking

STEPS = 6
SDE = Plan(sde, uniform_times(STEPS), 0.7)
MASKED = Plan(random_order, cosine_times(STEPS))
KINDS = {"flow": (tiny_flow, SDE), "masked": (tiny_masked, MASKED)}


@pytest.fixture(params=KINDS)
def kind(request):
    return request.param


def made(kind):
    make, plan = KINDS[kind]
    return make(), plan


SEARCHES = {
    "best_of_n": (best_of_n, best_of_n.Config(4)),
    "prm": (prm, prm.Config(4)),
    "prm_beam": (prm, prm.Config(4, beam=2, every=2)),
    "parm": (parm, parm.Config(5)),
    "halving": (halving, halving.Config(8, rungs=(0.3, 0.6))),
    "threshold": (threshold, threshold.Config(4, looks=(0.5,), accept=9.0)),
    "particles": (particles, particles.Config(4, strength=3.0, least_share=1)),
    "draft": (draft, draft.Config(6, 3, keep=2)),
}


@pytest.mark.parametrize("name", SEARCHES)
def test_what_is_kept_is_the_best_end_and_the_account_is_whole(name, kind):
    room, config = SEARCHES[name]
    generator, plan = made(kind)
    calls = []
    handle = generator.network.register_forward_hook(lambda m, a, out: calls.append(len(a[0])))
    found, ledger = drained(room.search, generator, Judge(), config, plan)
    handle.remove()
    images, scores, chosen = (joined(found, f) for f in ("images", "scores", "chosen"))
    torch.testing.assert_close(redness(images), scores.nan_to_num(-torch.inf).max(1).values, rtol=0, atol=1e-4)
    assert (chosen >= 0).all() and ledger.network_evaluations == sum(calls)
    pictures = from_bytes(joined(found, "pictures"))
    kept = pictures[torch.arange(3), chosen]
    torch.testing.assert_close(kept, images, rtol=0, atol=0.51 / 255)
    assert ledger.evaluations_after_pruning == 0 and not ledger.unanswered
    assert set(ledger.flops_by_part) == set(ledger.seconds_by_part) == {"generator", "decoder", "verifier"}
    assert ledger.flops_by_part["generator"] > 0
    assert (ledger.flops_by_part["decoder"] > 0) == (kind == "masked")  # pixels need no decoder


@pytest.mark.parametrize("name", SEARCHES)
def test_a_prompt_is_searched_the_same_alone_or_in_a_batch(name, kind):
    room, config = SEARCHES[name]
    generator, plan = made(kind)
    scores = joined(drained(room.search, generator, Judge(), config, plan)[0], "scores")
    alone = joined(drained(room.search, generator, Judge(), config, plan, 1.0, PROMPTS[1:2], SEEDS[1:2])[0], "scores")
    torch.testing.assert_close(scores[1:2], alone, rtol=0, atol=1e-3, equal_nan=True)


def test_parm_cuts_off_and_a_path_that_was_cut_off_costs_nothing_more(kind):
    """Cost by hand: every living path one evaluation a step, and of a flow one a look."""
    generator, plan = made(kind)
    judge = Judge(0.3)
    found, ledger = drained(parm.search, generator, judge, parm.Config(8), plan)
    looks = [look for f in found for one in f.looks for look in one]
    ends = [path[-1].step if path[-1].cut else STEPS for path in looks]
    asked = sum(len(path) for path in looks)
    per_look = 1 if kind == "flow" else 0
    assert ledger.network_evaluations == sum(ends) + per_look * asked
    assert ledger.pruned == sum(path[-1].cut for path in looks) > 0 and ledger.paths == 24
    assert ledger.evaluations_after_pruning == 0
    scores = joined(found, "scores")
    cut = torch.tensor([path[-1].cut for path in looks]).reshape(3, 8)
    assert torch.equal(scores.isnan(), cut) and not cut.all(1).any()
    unclear = sum("potential" not in look.words for path in looks for look in path)
    assert unclear == 24  # at step 1 of 6 nothing is clear yet
    assert ledger.verifier_calls == 2 * asked - unclear + int((~cut).sum())


def test_the_release_runs_every_path_to_its_end_and_leaves_out_the_refused(kind):
    generator, plan = made(kind)
    judge = Judge(0.3)
    pruned, _ = drained(parm.search, generator, Judge(0.3), parm.Config(8), plan)
    found, ledger = drained(parm.search, generator, judge, parm.Config(8, prune=False), plan)
    assert ledger.pruned == 0
    assert sum(n for n, _ in judge.seen) == 24  # once each, at the first step that is clear
    assert {round(6 * share) for _, share in judge.seen} == {2}
    whole, scores = drained(best_of_n.search, generator, judge, best_of_n.Config(8), plan)[0], joined(found, "scores")
    known = ~scores.isnan()
    torch.testing.assert_close(scores[known], joined(whole, "scores")[known], rtol=0, atol=1e-4)
    assert 3 <= known.sum() < 24 and known.any(1).all()
    assert joined(pruned, "scores").shape == scores.shape


def test_where_no_path_has_potential_the_best_of_them_goes_on(kind):
    generator, plan = made(kind)
    judge = Judge(0.5, potential=lambda images: chance(images, 2) * 0.4)
    for prune in (True, False):
        found, ledger = drained(parm.search, generator, judge, parm.Config(5, prune=prune), plan)
        known = ~joined(found, "scores").isnan()
        assert known.sum(1).tolist() == [1, 1, 1] and ledger.pruned == (12 if prune else 0)
        for one in (one for f in found for one in f.looks):
            worth = [float(path[2].words.split("potential ")[1]) for path in one]
            assert worth[int([not path[-1].cut for path in one].index(True))] == max(worth) or not prune


def test_a_verifier_without_an_answer_cuts_nothing_off(kind):
    generator, plan = made(kind)
    judge = Judge(0.3, potential=lambda images: torch.full((len(images),), float("nan")))
    found, ledger = drained(parm.search, generator, judge, parm.Config(3), plan)
    assert ledger.pruned == 0 and not joined(found, "scores").isnan().any()
    assert ledger.unanswered == {"no reason given": sum(n for n, _ in judge.seen)}


def test_parm_refuses_a_reward_that_judges_no_previews():
    with pytest.raises(TastemakerError, match="does not judge previews"):
        drained(parm.search, tiny_flow(), Scorer(), parm.Config(2), SDE)


def test_a_step_wise_search_keeps_the_best_preview_of_every_step():
    generator, plan = made("flow")
    found, ledger = drained(prm.search, generator, Scorer(), prm.Config(3), plan)
    for f in found:
        for lines in f.looks:
            assert all(len(line) == STEPS - 1 for line in lines)
            assert len({tuple(look.words for look in line) for line in lines}) == 1  # one line, branched at the end
    assert ledger.network_evaluations == 3 * 3 * STEPS + 3 * 3 * (STEPS - 1)
    assert ledger.pruned == 3 * 2 * (STEPS - 1)


@pytest.mark.parametrize("room, config", [(prm, prm.Config(3)), (particles, particles.Config(3, least_share=1))])
def test_branches_of_a_deterministic_sampler_are_refused(room, config):
    plan = Plan(euler, uniform_times(STEPS))
    with pytest.raises(TastemakerError, match="deterministic sampler"):
        drained(room.search, tiny_flow(), Judge(), config, plan)


def test_halving_costs_what_its_rungs_say():
    found, ledger = drained(
        halving.search, tiny_masked(), Scorer(), halving.Config(8, keep=0.5, rungs=(1 / 3, 2 / 3)), MASKED
    )
    assert ledger.network_evaluations == 3 * (8 * 2 + 4 * 2 + 2 * 2)
    assert (~joined(found, "scores").isnan()).sum(1).tolist() == [2, 2, 2]
    assert ledger.pruned == 18 and ledger.decoder_calls == 3 * (8 + 4 + 2)
    for lines in (lines for f in found for lines in f.looks):
        first = [float(line[0].words) for line in lines]
        assert min(v for v, line in zip(first, lines) if not line[0].cut) >= max(
            v for v, line in zip(first, lines) if line[0].cut
        )


def test_rungs_never_fall_on_the_last_step():
    assert halving.rung_steps((0.01, 0.5, 0.99), 4) == [1, 2, 3] and halving.rung_steps((0.5,), 1) == []


def test_the_threshold_stops_at_the_first_end_that_is_good_enough():
    config = threshold.Config(5, looks=(0.5,), least=-1e9, accept=-1e9)
    found, ledger = drained(threshold.search, tiny_masked(), Scorer(), config, MASKED)
    assert ledger.network_evaluations == 3 * STEPS and joined(found, "chosen").tolist() == [0, 0, 0]
    never = threshold.Config(5, looks=(0.5,), least=1e9, accept=1e9)
    found, ledger = drained(threshold.search, tiny_masked(), Scorer(), never, MASKED)
    assert ledger.network_evaluations == 3 * (4 * STEPS // 2 + STEPS)  # four cut off half way, the last let through
    assert joined(found, "chosen").tolist() == [4, 4, 4] and ledger.pruned == 12


def test_a_larger_reward_draws_more_of_its_particles(kind):
    """The best end of steered particles is redder than that of as many plain ones, in the mean of many prompts."""
    generator, plan = made(kind)
    prompts, seeds = PROMPTS[:1] * 40, list(range(40))
    config = particles.Config(4, strength=60.0, every=1, first=0.0, last=1.0)
    found, ledger = drained(particles.search, generator, Scorer(), config, plan, 1.0, prompts, seeds)
    steered = joined(found, "scores")
    plain = joined(
        drained(best_of_n.search, generator, Scorer(), best_of_n.Config(4), plan, 1.0, prompts, seeds)[0], "scores"
    )
    assert float(steered.mean()) > float(plain.mean()) + 2 * float(plain.mean(1).std()) / 40**0.5
    assert ledger.pruned > 0 and ledger.evaluations_after_pruning == 0


def test_particles_that_are_not_judged_are_plain_candidates(kind):
    generator, plan = made(kind)
    nothing = Scorer(lambda images: torch.zeros(len(images)))
    found, _ = drained(particles.search, generator, nothing, particles.Config(3), plan)
    whole, _ = drained(best_of_n.search, generator, nothing, best_of_n.Config(3), plan)
    assert torch.equal(joined(found, "pictures"), joined(whole, "pictures"))
    silent = Scorer(lambda images: torch.full((len(images),), float("nan")))
    found, ledger = drained(particles.search, generator, silent, particles.Config(3), plan)
    assert joined(found, "chosen").tolist() == [-1] * 3 and ledger.pruned == 0
    assert torch.equal(joined(found, "pictures"), joined(whole, "pictures"))
    with pytest.raises(UnknownName, match="potential"):
        particles.Config(3, potential="best")


def test_particles_drawn_twice_part_from_the_next_step_on():
    generator = tiny_masked()
    state = generator.start(Condition.of(PROMPTS), torch.tensor(SEEDS), MASKED)
    state = generator.advance(state)
    drawn = redrawn(state, torch.tensor([0, 0, 2, 2, 2]))
    assert torch.equal(drawn.x, state.x[[0, 0, 2, 2, 2]]) and len(set(drawn.branch[[0, 1]].tolist())) == 2
    ends = finish(generator, drawn).x
    assert torch.equal(ends[0], finish(generator, state).x[0])  # the first copy goes on as it would have
    assert not torch.equal(ends[0], ends[1]) and len({tuple(row) for row in ends[2:].tolist()}) == 3
    assert torch.equal(redrawn(drawn, torch.tensor([1])).branch, drawn.branch[1:2])


def test_noise_search_never_loses_what_it_had():
    generator, plan = tiny_flow(), Plan(euler, uniform_times(2))
    config = noise.Config(3, 4, 0.4)
    found, ledger = drained(noise.search, generator, Scorer(), config, plan)
    scores = joined(found, "scores")
    assert scores.shape == (3, 13) and ledger.network_evaluations == 2 * 39
    torch.testing.assert_close(scores[:, 0], redness(sample(generator, PROMPTS, SEEDS, plan, 1.0)), rtol=0, atol=1e-4)
    assert (joined(found, "images").shape[0] == 3) and (scores.max(1).values > scores[:, 0]).any()
    with pytest.raises(TastemakerError, match="no noise to search"):
        drained(noise.search, tiny_masked(), Scorer(), config, MASKED)


def test_neighbours_are_normal_and_as_near_as_was_asked():
    generator = tiny_flow()
    pivot = generator.start(Condition.of(PROMPTS * 8), torch.arange(24))
    around = noise.neighbours(pivot, 4, 0.6, 0)
    assert around.x.shape == (96, 3, 16, 16) and len({float(v) for v in around.x.sum((1, 2, 3))}) == 96
    assert float(around.x.std()) == pytest.approx(1, abs=0.01)
    same = (around.x * pivot.x.repeat_interleave(4, 0)).mean()
    assert float(same) == pytest.approx(0.8, abs=0.01)  # sqrt(1 - 0.36)
    best, value = noise.climbed(
        pivot, torch.full((24,), 0.5), around, torch.tensor([[0.1, 0.9, 0.2, float("nan")]] * 24)
    )
    assert torch.equal(best.x, around.x[1::4]) and value.tolist() == [pytest.approx(0.9)] * 24
    kept, value = noise.climbed(pivot, torch.full((24,), 1.5), around, torch.full((24, 4), float("nan")))
    assert torch.equal(kept.x, pivot.x) and value.tolist() == [1.5] * 24


def test_drafts_cost_few_steps_and_the_best_are_rendered():
    generator = tiny_flow()
    found, ledger = drained(draft.search, generator, Scorer(), draft.Config(6, 2, keep=2), SDE)
    assert ledger.network_evaluations == 3 * (6 * 2 + 2 * STEPS)
    for f in found:
        for scores, lines in zip(f.scores, f.looks):
            drafted = torch.tensor([float(line[0].words.split()[1]) for line in lines])
            known = ~scores.isnan()
            assert known.sum() == 2 and drafted[known].min() >= drafted[~known].max()
    with pytest.raises(TastemakerError, match="from 1 to 6 steps"):
        drained(draft.search, generator, Scorer(), draft.Config(6, 7), SDE)
    assert thinned(SDE, 3).times == (0.0, 2 / 6, 4 / 6, 1.0) and thinned(SDE, 6) == SDE


def test_calibration_finds_the_step_from_which_previews_foretell():
    class Later(Scorer):
        """Says nothing of a preview before half of the way: a number that has nothing to do with the end."""

        def __init__(self):
            self.calls = 0

        def score(self, images, prompts):
            self.calls += 1
            return chance(images, self.calls) if self.calls <= 2 else redness(images)

    generator, ledger = tiny_masked(), Ledger()
    config = calibrate.Config(12, 0.6, batch_size=400)
    prompts, seeds = PROMPTS * 8, list(range(24))
    found = calibrate.calibrate(generator, Later(), prompts, seeds, config, ledger, MASKED, 1.0)
    assert found.correlation.shape == found.distance.shape == (24, STEPS)
    assert (
        float(found.mean[-1]) == pytest.approx(1)
        and abs(float(found.mean[0])) < 0.25
        and abs(float(found.mean[1])) < 0.25
    )
    assert float(found.mean[4]) > float(found.mean[1]) + 0.2
    assert found.foretells_from(-0.99) == 1 / STEPS and found.foretells_from(0.999) is None
    late = found.foretells_from(float(found.mean[4]) - 1e-6)
    assert late is not None and late > 2 / STEPS
    assert len(found.as_dict()["correlation"]) == STEPS and ledger.network_evaluations == 24 * 12 * STEPS


def test_rank_agreement_leaves_out_what_is_missing():
    nan = float("nan")
    assert calibrate.rank_agreement(torch.tensor([1.0, 2, nan, 3]), torch.tensor([2.0, 4, 0, 9])) == pytest.approx(1)
    assert calibrate.rank_agreement(torch.tensor([1.0, 2, nan]), torch.tensor([2.0, 4, 0])) != 1  # NaN: too few


def test_a_network_evaluation_of_a_path_that_was_cut_off_is_found_out():
    generator = tiny_flow()
    with (
        pytest.raises(AssertionError, match="cut off and yet charged"),
        walking(generator, Scorer(), Ledger(), 8, SDE, 1.0) as walk,
    ):
        state, paths = walk.start(PROMPTS, torch.tensor(SEEDS), 2)
        walk.cut(paths[:1])
        walk.advance(state, paths)
    ledger = Ledger()
    with (
        pytest.raises(AssertionError, match="on the paths' accounts"),
        walking(generator, Scorer(), ledger, 8, SDE, 1.0) as walk,
    ):
        state, paths = walk.start(PROMPTS, torch.tensor(SEEDS), 2)
        generator.advance(state)  # behind the walk's back


def test_flops_are_those_of_the_network_and_once_counted_cost_no_time():
    generator = tiny_masked()
    _, ledger = drained(best_of_n.search, generator, Scorer(), best_of_n.Config(4, batch_size=4), MASKED)
    _, twice = drained(best_of_n.search, generator, Scorer(), best_of_n.Config(8, batch_size=4), MASKED)
    assert twice.flops_by_part["generator"] == pytest.approx(2 * ledger.flops_by_part["generator"], rel=1e-6)
    linear = sum(m.weight.numel() for m in generator.network.modules() if isinstance(m, torch.nn.Linear))
    per_row = ledger.flops_by_part["generator"] / ledger.network_evaluations
    assert per_row > 2 * linear  # each weight at least once, for every token
