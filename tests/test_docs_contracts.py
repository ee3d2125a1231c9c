"""The code on docs/contracts.md runs, in order, in one namespace; its own asserts hold. So does that of world.md."""

import re
from pathlib import Path

import pytest
import torch

PAGE = Path(__file__).resolve().parent.parent / "docs" / "contracts.md"


def code_blocks(page: Path) -> list[str]:
    """Python blocks, each moved down to its own line of the page, so that a failure names that line."""
    text = page.read_text()
    found = re.finditer(r"^```python\n(.*?)^```", text, re.S | re.M)
    return ["\n" * text.count("\n", 0, m.start(1)) + m.group(1) for m in found]


@pytest.fixture(scope="module")
def said():
    namespace: dict = {"__name__": "contracts"}
    for block in code_blocks(PAGE):
        exec(compile(block, str(PAGE), "exec"), namespace)
    return namespace


def test_every_block_of_the_page_runs_and_its_asserts_hold(said):
    assert len(code_blocks(PAGE)) >= 8 and PAGE.read_text().count("assert ") >= 9
    assert "diffusion_dpo" in said


def test_the_dpo_sketch_has_the_gradient_of_its_closed_form(said):
    """At policy = reference the gradient is beta / 2 times that of loss(winner) - loss(loser)."""
    generator, draw, condition = said["generator"], said["draw"], said["Condition"].of(said["prompts"])
    weights = list(generator.network.parameters())
    loss = said["diffusion_dpo"](generator, said["base"], said["winner"], said["loser"], condition, draw, 500.0)
    margin = generator.loss(said["winner"], condition, draw) - generator.loss(said["loser"], condition, draw)
    ours, expected = (torch.autograd.grad(v.sum(), weights) for v in (loss, 250.0 * margin))
    torch.testing.assert_close(ours, expected)


def test_pruned_particles_arrive_where_all_would_have(said):
    generator, parents, state = said["generator"], said["parents"], said["state"]
    everything = generator.start(parents.condition, parents.seeds, branch=parents.branch)
    while not everything.done.all():
        everything = generator.advance(everything)
    lines = list(zip(parents.seeds.tolist(), parents.branch.tolist()))  # a particle is its seed and branch
    places = [lines.index(line) for line in zip(state.seeds.tolist(), state.branch.tolist())]
    torch.testing.assert_close(state.x, everything.x[places], atol=1e-5, rtol=0)


def test_a_step_down_the_adjoint_matching_sketch_raises_the_reward_of_its_own_plan(said):
    generator, plan, prompts = said["generator"], said["plan"], said["prompts"]
    weights = list(generator.network.parameters())
    gradients = torch.autograd.grad(said["matching"].sum(), weights)
    tuned = generator.reference()
    for p, g in zip(tuned.network.parameters(), gradients):
        p.sub_(1e-3 * g)
    before, after = (
        said["reward"].score(said["tm"].sample(g, prompts * 20, range(60), plan), prompts) for g in (generator, tuned)
    )
    assert after.mean() > before.mean()


def test_the_world_page_says_how_examples_are_made():
    namespace: dict = {}
    for block in code_blocks(PAGE.with_name("world.md")):
        exec(compile(block, "world.md", "exec"), namespace)
    assert namespace["image"].shape == (3, 64, 64) and namespace["caption"] == namespace["about"].caption
