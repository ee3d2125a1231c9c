"""Show-o's sampler and its lookup-free quantiser. Theirs: guidance s is ours less 1; what a step draws is given;
after the last step one position counts as masked, while the tokens that are returned are whole."""

import json
import pathlib
from collections.abc import Iterator

import numpy as np
import torch
from comparison import Comparison, close, equal
from torch import Tensor, nn

from tastemaker.algorithms.tokenizer import bit_entropy, commitment, mean_entropy
from tastemaker.generators.masked import MaskedGenerator
from tastemaker.generators.unmasking import MASK, Step, released_temperatures, show_o, staying, times_of
from tastemaker.generators.vq import bits_of, codes_of, signs_of_latent
from tastemaker.protocols import Condition, Plan
from tastemaker.token_probability import token_log_prob

SMALL = 1e-20


class Given(MaskedGenerator):
    """Answers with the scores that it was given, and draws what it was given."""

    def __init__(self, tokens: int, scores: dict[str, Tensor], draws: Tensor):
        super().__init__(nn.Linear(1, 1), tokens, codec=None)
        self.scores, self.draws = scores, draws

    def encode_text(self, condition):
        asked = torch.tensor([[float(bool(p.text)), k] for k, p in enumerate(condition.prompts)])
        return {"asked": asked}

    def predict_logits(self, tokens, t, condition):
        both = torch.stack([self.scores["uncond_logits"], self.scores["cond_logits"]], 1)  # (B, 2, N, V)
        asked = condition.cache["asked"].long()
        return both[asked[:, 1], asked[:, 0]]

    def propose(self, state, uniform):
        logits = self.guided_logits(state.x, state.condition)
        drawn = torch.where(state.x == MASK, self.draws[state.step, torch.arange(len(state))], state.x)
        return drawn, token_log_prob(logits, drawn)


def compare(folder: pathlib.Path) -> Iterator[Comparison]:
    config = json.loads((folder / "config.json").read_text())
    inputs = {n: torch.from_numpy(v) for n, v in np.load(folder / "inputs.npz").items()}
    arrays, said = np.load(folder / "expected.npz"), json.loads((folder / "expected.json").read_text())
    for row in said["schedules"]:
        yield from schedule(row)
    yield from decoded("cfg", 1 + config["guidance_scale"], config, inputs, arrays)
    yield from decoded("nocfg", 1.0, config, inputs, arrays)
    yield from quantised(config["codebook_dim"], inputs, arrays)


def schedule(row) -> Iterator[Comparison]:
    name, (tokens, steps) = f"{row['schedule']}, {row['N']} in {row['T']}", (row["N"], row["T"])
    times = torch.tensor(times_of(row["schedule"], steps), dtype=torch.float64)
    masked, counts = torch.tensor([tokens]), []
    for k in range(steps):
        masked = staying(masked, tokens, times[k + 1 : k + 2], torch.tensor([False]))
        counts.append(int(masked))
    yield equal(f"mask_len, {name}", counts, [int(n) for n in row["mask_len"]])
    yield equal(f"still masked, {name}", counts, row["still_masked_after_step"])
    heats = released_temperatures(steps, row["start_temperature"])
    yield close(f"temperature, {name}", heats, row["temperature"], rtol=1e-12)


def decoded(name: str, guidance: float, config, inputs, arrays) -> Iterator[Comparison]:
    tokens, steps, batch = config["num_vq_tokens"], config["timesteps"], config["batch"]
    plan = Plan(show_o, times_of("cosine", steps), temperature=config["temperature"])
    generator = Given(tokens, inputs, inputs[f"{name}_sampled_draw"])
    state = generator.start(Condition.of([f"a {k}" for k in range(batch)], guidance), torch.arange(batch), plan)
    for k in range(steps):
        yield equal(f"{name} tokens, step {k}", state.x.tolist(), arrays[f"{name}_tokens_in"][k].tolist())
        uniform = torch.stack([torch.zeros(batch, tokens), inputs[f"{name}_uniform"][k]], 1)
        drawn, log_p = generator.propose(state, uniform[:, 0])
        chosen = torch.where(state.x == MASK, log_p.exp(), torch.finfo(log_p.dtype).max)
        yield close(
            f"{name} probabilities, step {k}", chosen, arrays[f"{name}_selected_probs"][k], rtol=1e-5, atol=SMALL
        )
        step = generator.step_of(state, log_p, uniform[:, 1])
        theirs = Step(**{**vars(step), "stay": step.stay.clamp_min(1)})  # one is left after the last
        yield equal(
            f"{name} mask_len, step {k}", theirs.stay.tolist(), [int(n) for n in arrays[f"{name}_mask_len"][k]]
        )
        yield equal(f"{name} masked, step {k}", show_o(theirs).tolist(), arrays[f"{name}_masking"][k].tolist())
        last = torch.where(show_o(theirs), MASK, drawn)
        state = generator.advance(state, uniform)
    yield equal(f"{name} tokens", state.x.tolist(), arrays[f"{name}_final"].tolist())
    yield equal(f"{name} tokens as marked", last.tolist(), arrays[f"{name}_input_ids_after"].tolist())
    heats = released_temperatures(steps, config["temperature"])
    yield close(f"{name} temperature", heats, arrays[f"{name}_temperature"], rtol=1e-12)


def quantised(bits: int, inputs, arrays) -> Iterator[Comparison]:
    z, codes = inputs["lfq_z"], inputs["lfq_codes"]
    side = int(codes.shape[1] ** 0.5)
    yield close("bits", bits_of(inputs["lfq_indices"], bits), arrays["lfq_bits"])
    yield close("signs", signs_of_latent(z), arrays["lfq_z_q"], atol=1e-6)
    yield equal("indices", codes_of(z).tolist(), arrays["lfq_z_indices"].reshape(len(z), -1).tolist())
    latents = bits_of(codes, bits).unflatten(1, (side, side)).movedim(-1, 1)
    yield close("codes to latents", latents, arrays["lfq_codes_to_latents"])
    # a tenth of the distance, which is counted once and a quarter; a tenth of both entropies
    yield close("quantizer_loss", 0.125 * commitment(z).mean(), arrays["lfq_quantizer_loss"], rtol=1e-5)
    entropies = bit_entropy(z).mean() - mean_entropy(z, 1)
    yield close("entropy_loss", 0.1 * entropies, arrays["lfq_entropy_loss"], rtol=1e-5, atol=1e-6)
