"""Best-of-N: order statistics, N = 1 is plain sampling, NaN never wins, and the ledger counts exactly."""

import pytest
import torch
from small import tiny_flow

from tastemaker.errors import TastemakerError
from tastemaker.generators.flow import uniform_times
from tastemaker.generators.samplers import ddim, euler, heun, sde
from tastemaker.protocols import Condition, Plan, Prompt
from tastemaker.randomness import stream
from tastemaker.records import Ledger, Provenance
from tastemaker.sampling import finish, sample
from tastemaker.search.best_of_n import Config, candidates, choose, search
from tastemaker.search.ledger import metered, timed

PROMPTS = [Prompt(f"a photo of a {name}") for name in ("cat", "dog", "key", "car", "cup")]
SEEDS = [11, 12, 13, 14, 15]
PLAN = Plan(sde, uniform_times(3), 0.7)


class Judge:
    """Any function (images, prompts) -> (B,)."""

    name, differentiable, range, provenance = "judge", False, (0.0, 1.0), Provenance("judge")

    def __init__(self, score):
        self.score = score


def brightness(images, prompts):
    return images.mean((1, 2, 3))


def uniform(images, prompts):
    """A number from 0 to 1 that has nothing to do with what is shown."""
    return torch.tensor([stream(hash(round(float(x), 5)) % 2**60).random() for x in images.sum((1, 2, 3))])


def run(score, n, plan=PLAN, guidance=1.0, batch_size=64, prompts=PROMPTS, seeds=SEEDS):
    generator, ledger = tiny_flow(), Ledger()
    found = list(search(generator, Judge(score), prompts, seeds, Config(n, batch_size), ledger, plan, guidance))
    return (
        torch.cat([f.images for f in found]),
        torch.cat([f.scores for f in found]),
        torch.cat([f.chosen for f in found]),
        ledger,
    )


def test_one_candidate_is_plain_sampling():
    images, scores, chosen, _ = run(brightness, 1)
    plain = sample(tiny_flow(), PROMPTS, SEEDS, PLAN, 1.0)
    torch.testing.assert_close(images, plain, rtol=0, atol=1e-5)
    assert chosen.tolist() == [0] * 5 and scores.shape == (5, 1)


def test_the_kept_picture_is_the_best_of_its_own_candidates():
    images, scores, chosen, _ = run(brightness, 6)
    torch.testing.assert_close(brightness(images, None), scores.max(1).values)
    assert torch.equal(chosen, scores.argmax(1)) and len(set(chosen.tolist())) > 1
    torch.testing.assert_close(scores[:, 0], brightness(sample(tiny_flow(), PROMPTS, SEEDS, PLAN, 1.0), None))
    assert len({round(float(s), 6) for s in scores.flatten()}) == 30  # no two candidates are one picture


def test_candidates_do_not_depend_on_the_batch():
    whole, one_by_one = run(brightness, 4), run(brightness, 4, batch_size=1)
    torch.testing.assert_close(whole[1], one_by_one[1], rtol=0, atol=1e-5)
    torch.testing.assert_close(whole[0], one_by_one[0], rtol=0, atol=1e-5)
    more = run(brightness, 7)
    torch.testing.assert_close(more[1][:, :4], whole[1], rtol=0, atol=1e-5)  # a larger N only adds


def test_candidates_start_from_their_branches():
    generator = tiny_flow()
    state = candidates(generator, PROMPTS, torch.tensor(SEEDS), 3, PLAN, 2.0)
    assert len(state) == 15 and state.condition.prompts[:4] == (PROMPTS[0],) * 3 + (PROMPTS[1],)
    assert torch.equal(state.x[::3], generator.start(Condition.of(PROMPTS, 2.0), torch.tensor(SEEDS), PLAN).x)
    assert len({tuple(row) for row in state.x.flatten(1).tolist()}) == 15
    alone = generator.start(state[4].condition, state.seeds[4:5], PLAN, state.branch[4:5])
    torch.testing.assert_close(finish(generator, alone).x, finish(generator, state).x[4:5], rtol=0, atol=1e-5)


@pytest.mark.parametrize("n", [2, 4, 8])
def test_the_mean_of_the_best_of_uniform_scores_is_n_over_n_plus_1(n):
    count, plan = 400, Plan(euler, uniform_times(1))
    _, scores, chosen, _ = run(uniform, n, plan, prompts=PROMPTS[:1] * count, seeds=range(count))
    best = scores[torch.arange(count), chosen]
    deviation = (n / ((n + 1) ** 2 * (n + 2))) ** 0.5  # of the largest of n uniform numbers
    assert float(best.mean()) == pytest.approx(n / (n + 1), abs=4 * deviation / count**0.5)
    assert abs(float(scores.mean()) - 0.5) < 4 * (1 / 12 / scores.numel()) ** 0.5


def test_nan_never_wins_and_all_nan_chooses_nothing():
    nan = float("nan")
    table = torch.tensor([[nan, -5.0, nan], [nan, nan, nan], [1.0, nan, 1.0], [-9.0, 3.0, nan]])
    assert choose(table).tolist() == [1, -1, 0, 1]

    def sometimes(images, prompts):
        values = brightness(images, prompts)
        values[values > values.median()] = float("nan")
        return values

    _, scores, chosen, _ = run(sometimes, 4)
    for row, k in zip(scores, chosen.tolist()):
        assert (k == -1) == bool(row.isnan().all()) and (k == -1 or row[k] == row[~row.isnan()].max())
    images, _, chosen, _ = run(lambda images, prompts: torch.full((len(images),), nan), 3)
    assert chosen.tolist() == [-1] * 5
    torch.testing.assert_close(images, sample(tiny_flow(), PROMPTS, SEEDS, PLAN, 1.0), rtol=0, atol=1e-5)


def test_an_infinite_score_is_no_score():
    _, scores, chosen, _ = run(
        lambda images, p: torch.where(torch.arange(len(images)) % 3 == 1, torch.inf, brightness(images, p)), 3
    )
    assert scores[:, 1].isnan().all() and 1 not in chosen.tolist()


@pytest.mark.parametrize(
    "sampler, steps, calls", [(euler, 5, 5), (sde, 5, 5), (ddim, 4, 4), (heun, 4, 7), (heun, 1, 1)]
)
@pytest.mark.parametrize("guidance, factor", [(1.0, 1), (3.0, 2)])
def test_the_ledger_counts_exactly(sampler, steps, calls, guidance, factor):
    _, _, _, ledger = run(brightness, 3, Plan(sampler, uniform_times(steps), 0.5), guidance, batch_size=7)
    assert ledger.network_evaluations == calls * factor * 15
    assert ledger.decoder_calls == ledger.verifier_calls == 15
    assert set(ledger.seconds_by_part) == {"generator", "decoder", "verifier"}
    assert ledger.seconds == pytest.approx(sum(ledger.seconds_by_part.values())) and ledger.seconds > 0


def test_the_meter_stops_with_its_block_and_counts_words_given_by_name():
    network, ledger = torch.nn.Identity(), Ledger()
    with metered(network, ledger), timed(ledger, "a"):
        network(torch.zeros(3, 2))
        network(input=torch.zeros(4, 2))
    network(torch.zeros(9, 2))
    with pytest.raises(RuntimeError), metered(network, ledger), timed(ledger, "b"):
        raise RuntimeError
    network(torch.zeros(9, 2))
    assert ledger.network_evaluations == 7 and set(ledger.as_dict()["seconds_by_part"]) == {"a", "b"}


def test_wrong_requests():
    for n, seeds in ((0, SEEDS), (2, [1, 2])):
        with pytest.raises(TastemakerError, match="expected n >= 1 and a seed per prompt"):
            run(brightness, n, seeds=seeds)
    with pytest.raises(TastemakerError, match="'judge' must give one number per picture"):
        run(lambda images, prompts: images, 2)
