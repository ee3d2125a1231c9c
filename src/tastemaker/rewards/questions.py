"""What a vision-language model is asked about a picture: conversations that end in a question.

A conversation is a tuple of turns (question, answer), the answer of the last one empty; the picture belongs to the
first question. Tasks are those of "Can we generate images with CoT?" (Guo et al. 2025, arXiv 2501.13926, sections
3.2, 4 and 5): the outcome (ORM), the process (PRM), and PARM's clarity and potential, of which the second is a
follow-up turn to the first, so that the picture is read once. The wording is ours.
"""

from __future__ import annotations

Turn = tuple[str, str]
Conversation = tuple[Turn, ...]

OUTCOME = (
    'This image was generated from the prompt "{}". Does the image show exactly what the prompt says? '
    "Answer yes or no, without an explanation."
)
PROCESS = (
    'This is an intermediate image of a generation from the prompt "{}"; later steps will refine it. Is it on the '
    "way to an image that shows exactly what the prompt says? Answer yes or no, without an explanation."
)
CLARITY = (
    'This image is one step of a generation from the prompt "{}". It is not finished, and will improve. Can it '
    "already be used to judge whether the finished image will show what the prompt says? It does not have to be "
    "perfect, but clear enough to make out the objects. Answer yes or no, in lower case and without a full stop."
)
POTENTIAL = (
    "Can this image become one that shows exactly what the prompt says? Answer yes or no, in lower case and without "
    "a full stop."
)
CRITIQUE = "Say in one short sentence what the image lacks, or shows differently from the prompt."
STATEMENT = "{} Answer yes or no, without an explanation."
YES, NO = "yes", "no"


def outcome(prompt: str) -> Conversation:
    """Is it what was asked for? Best-of-N and best-of-N'."""
    return ((OUTCOME.format(prompt), ""),)


def process(prompt: str) -> Conversation:
    """Is this step on the way?"""
    return ((PROCESS.format(prompt), ""),)


def clarity(prompt: str) -> Conversation:
    """Can this step be judged?"""
    return ((CLARITY.format(prompt), ""),)


def potential(prompt: str) -> Conversation:
    """After a yes to clarity: can it become what was asked for?"""
    return ((CLARITY.format(prompt), YES), (POTENTIAL, ""))


def critique(prompt: str) -> Conversation:
    """After a no: what is wrong?"""
    return ((OUTCOME.format(prompt), NO), (CRITIQUE, ""))


def statement(question: str) -> Conversation:
    """Any question with yes or no for an answer."""
    return ((STATEMENT.format(question), ""),)
