"""`tastemaker models`: what can be loaded."""

NAME = "models"


def run() -> None:
    """List the generators and rewards that can be loaded, their licence and what they need."""
    from ..workflows.load import print_models

    print_models()
