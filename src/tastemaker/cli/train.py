"""`tastemaker train NAME`: one command per algorithm; its settings are those of its `Config`."""

from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, Typer

from .options import AlgorithmCommand, split_config

NAME = "train"
app = Typer(help="Train a generator or a reward; the run is a folder.", no_args_is_help=True)

Words = Annotated[list[str] | None, Argument(metavar="[CONFIG.yaml] [key=value ...]", help="Settings, see below.")]
Out = Annotated[Path | None, Option(help="The folder of the run.", metavar="RUN")]
Resume = Annotated[Path | None, Option(help="Go on with this run, bit for bit.", metavar="RUN")]
Data = Annotated[
    Path | None,
    Option(help="Your own pictures: a folder with .txt captions, a CSV, or a tar; else the embedded world."),
]
Track = Annotated[
    str, Option(help="Also log to tensorboard, wandb or trackio; several with commas.", metavar="NAMES")
]


def _done(run: Any) -> None:
    """Every run ends with its page, which the first of several processes writes."""
    from ..ranks import first
    from ..report.runs import write_reports

    if not first():
        return
    print(f"wrote {run.folder} and {write_reports([run.folder])[0]}")


@app.command(cls=AlgorithmCommand)
def pretrain(
    words: Words = None, out: Out = None, resume: Resume = None, data: Data = None, track: Track = ""
) -> None:
    """Train a generator from nothing, on the embedded world or on your own pictures with captions."""
    settings = split_config(words)
    from ..workflows.train import train_pretrain

    _done(train_pretrain(*settings, out, resume, data, track))


@app.command(cls=AlgorithmCommand)
def clip(words: Words = None, out: Out = None, resume: Resume = None, data: Data = None, track: Track = "") -> None:
    """Train an image tower and a text tower on pictures with captions."""
    settings = split_config(words)
    from ..workflows.train import train_clip

    _done(train_clip(*settings, out, resume, data, track))


@app.command(cls=AlgorithmCommand)
def miro(
    words: Words = None,
    out: Out = None,
    resume: Resume = None,
    data: Annotated[
        Path | None,
        Option(help="Your own pictures: a tar, a Parquet file or a folder of these that was scored by `score`."),
    ] = None,
    track: Track = "",
) -> None:
    """Train a generator that is told the rewards of every picture, so that they can be asked for (MIRO)."""
    settings = split_config(words)
    from ..workflows.miro import train_miro

    _done(train_miro(*settings, out, resume, data, track))


@app.command("reward-model", cls=AlgorithmCommand)
def reward_model(
    words: Words = None,
    out: Out = None,
    resume: Resume = None,
    data: Annotated[
        Path | None,
        Option(help="A folder or file of votes, or a ratings table; else simulated raters of the embedded world."),
    ] = None,
    track: Track = "",
) -> None:
    """Learn from votes which of two pictures people prefer (Bradley-Terry, as ImageReward)."""
    settings = split_config(words)
    from ..workflows.reward_model import train_reward_model

    _done(train_reward_model(*settings, out, resume, data, track))


@app.command(cls=AlgorithmCommand)
def discriminator(
    words: Words = None,
    out: Out = None,
    resume: Resume = None,
    data: Annotated[
        Path | None,
        Option(
            help="Your own real pictures: a folder (with .txt captions, subfolders as classes, or neither), a CSV "
            "or a tar; else the embedded world's."
        ),
    ] = None,
    track: Track = "",
) -> None:
    """Learn to tell real pictures from a generator's, in a frozen feature space: the reward of DRL."""
    settings = split_config(words)
    from ..workflows.discriminator import train_discriminator

    _done(train_discriminator(*settings, out, resume, data, track))


@app.command(cls=AlgorithmCommand)
def refl(words: Words = None, out: Out = None, resume: Resume = None, data: Data = None, track: Track = "") -> None:
    """Improve a generator by the gradient of a reward through a late step (ReFL)."""
    settings = split_config(words)
    from ..workflows.refl import train_refl

    _done(train_refl(*settings, out, resume, data, track))


@app.command(cls=AlgorithmCommand)
def draft(words: Words = None, out: Out = None, resume: Resume = None, data: Data = None, track: Track = "") -> None:
    """Improve a generator by the gradient of a reward through the last steps of sampling (DRaFT)."""
    settings = split_config(words)
    from ..workflows.tune import train_draft

    _done(train_draft(*settings, out, resume, data, track))


@app.command(cls=AlgorithmCommand)
def sft(words: Words = None, out: Out = None, resume: Resume = None, data: Data = None, track: Track = "") -> None:
    """Fine-tune a generator on the best-scored pictures of a data set (dataset filtering)."""
    settings = split_config(words)
    from ..workflows.tune import train_sft

    _done(train_sft(*settings, out, resume, data, track))


@app.command("reward-weighted", cls=AlgorithmCommand)
def reward_weighted(
    words: Words = None, out: Out = None, resume: Resume = None, data: Data = None, track: Track = ""
) -> None:
    """Fine-tune a generator on its own pictures, each weighed by its reward."""
    settings = split_config(words)
    from ..workflows.tune import train_reward_weighted

    _done(train_reward_weighted(*settings, out, resume, data, track))


@app.command(cls=AlgorithmCommand)
def raft(words: Words = None, out: Out = None, resume: Resume = None, data: Data = None, track: Track = "") -> None:
    """Fine-tune a generator in rounds, on the best of several own pictures of each prompt (RAFT)."""
    settings = split_config(words)
    from ..workflows.tune import train_raft

    _done(train_raft(*settings, out, resume, data, track))


@app.command(cls=AlgorithmCommand)
def drl(words: Words = None, out: Out = None, resume: Resume = None, data: Data = None, track: Track = "") -> None:
    """Reinforcement learning with a KL to the base, by the reward's gradient (DRL, adjoint matching)."""
    settings = split_config(words)
    from ..workflows.rl import train_drl

    _done(train_drl(*settings, out, resume, data, track))


@app.command("flow-grpo", cls=AlgorithmCommand)
def flow_grpo(
    words: Words = None, out: Out = None, resume: Resume = None, data: Data = None, track: Track = ""
) -> None:
    """Reinforcement learning with any reward, by the densities of a stochastic sampler's steps (Flow-GRPO)."""
    settings = split_config(words)
    from ..workflows.rl import train_flow_grpo

    _done(train_flow_grpo(*settings, out, resume, data, track))


@app.command("masked-grpo", cls=AlgorithmCommand)
def masked_grpo(
    words: Words = None, out: Out = None, resume: Resume = None, data: Data = None, track: Track = ""
) -> None:
    """Reinforcement learning of a masked-token generator with any reward, by the densities of its tokens (GRPO)."""
    settings = split_config(words)
    from ..workflows.rl import train_masked_grpo

    _done(train_masked_grpo(*settings, out, resume, data, track))


@app.command(cls=AlgorithmCommand)
def nft(words: Words = None, out: Out = None, resume: Resume = None, data: Data = None, track: Track = "") -> None:
    """Reinforcement learning with any reward and any sampler, towards good pictures, away from bad (DiffusionNFT)."""
    settings = split_config(words)
    from ..workflows.rl import train_nft

    _done(train_nft(*settings, out, resume, data, track))


@app.command(cls=AlgorithmCommand)
def awm(words: Words = None, out: Out = None, resume: Resume = None, data: Data = None, track: Track = "") -> None:
    """Reinforcement learning with any reward and any sampler, by the matching loss in place of a density (AWM)."""
    settings = split_config(words)
    from ..workflows.rl import train_awm

    _done(train_awm(*settings, out, resume, data, track))


@app.command(cls=AlgorithmCommand)
def tokenizer(
    words: Words = None, out: Out = None, resume: Resume = None, data: Data = None, track: Track = ""
) -> None:
    """Train what makes tokens of pictures and pictures of tokens (lookup-free quantisation)."""
    settings = split_config(words)
    from ..workflows.tokens import train_tokenizer

    _done(train_tokenizer(*settings, out, resume, data, track))


@app.command(cls=AlgorithmCommand)
def masked(words: Words = None, out: Out = None, resume: Resume = None, data: Data = None, track: Track = "") -> None:
    """Train a masked-token generator from nothing, on a trained tokenizer (MaskGIT, Show-o)."""
    settings = split_config(words)
    from ..workflows.tokens import train_masked

    _done(train_masked(*settings, out, resume, data, track))


@app.command(cls=AlgorithmCommand)
def dpo(
    words: Words = None,
    out: Out = None,
    resume: Resume = None,
    data: Annotated[
        Path | None,
        Option(
            help="Pairs: a .jsonl of prompt, chosen and rejected, or votes; else the generator's own pictures, by "
            "the reward."
        ),
    ] = None,
    track: Track = "",
) -> None:
    """Improve a generator on chosen and rejected pictures, without a reward's gradient (DPO, in rounds)."""
    settings = split_config(words)
    from ..workflows.dpo import train_dpo

    _done(train_dpo(*settings, out, resume, data, track))


@app.command("self-correction", cls=AlgorithmCommand)
def self_correction(
    words: Words = None,
    out: Out = None,
    resume: Resume = None,
    data: Annotated[
        Path | None,
        Option(
            help="Groups of prompt, bad, good and reason: a .jsonl of `search reflect --export-groups`; else the "
            "embedded world's."
        ),
    ] = None,
    track: Track = "",
) -> None:
    """Teach a masked-token generator to set right what a critique has found in its pictures (PARM++)."""
    settings = split_config(words)
    from ..workflows.self_correction import train_self_correction

    _done(train_self_correction(*settings, out, resume, data, track))
