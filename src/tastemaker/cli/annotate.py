"""`tastemaker annotate NAME`: people compare pictures, and what they say goes into files."""

from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

from typer import Argument, Option, Typer

from ..errors import MissingExtra

NAME = "annotate"
app = Typer(help="Let people compare pictures: server, accounts, items in, votes out.", no_args_is_help=True)

Base = Annotated[str, Option("--database", help="A SQLite file or a postgresql:// URL.")]
Only = Annotated[str | None, Option("--project", help="One project; all of them if not given.")]


def workflow(name: str = "annotate") -> Any:
    """The module that does the work; its packages are an extra."""
    try:
        return import_module(f"tastemaker.workflows.{name}")
    except ModuleNotFoundError as error:
        raise MissingExtra(error.name or "sqlalchemy", "web") from error


@app.command()
def serve(
    database: Base = "annotations.db",
    host: Annotated[str, Option(help="127.0.0.1 is this machine only, 0.0.0.0 all that reach it.")] = "127.0.0.1",
    port: Annotated[int, Option(help="The port to listen on.")] = 8000,
    admin_password: Annotated[
        str | None,
        Option(help="Of the first admin; made up and printed once if not given.", envvar="TASTEMAKER_ADMIN_PASSWORD"),
    ] = None,
    pictures: Annotated[str | None, Option(help="Folder of the pictures; beside a SQLite file if not given.")] = None,
    secure: Annotated[
        bool, Option("--secure", help="Cookies over HTTPS only, behind a proxy that speaks it.")
    ] = False,
    trusted_proxy: Annotated[str | None, Option(help="Address of that proxy, believed on who is asking.")] = None,
    demo: Annotated[bool, Option(help="Fill a new database with a demo project for each preset.")] = True,
) -> None:
    """Serve the annotation app; a new database gets an admin and demo projects of the emoji world."""
    workflow().serve_app(database, host, port, admin_password, secure, pictures, trusted_proxy, demo)


@app.command()
def user(
    login: Annotated[str, Argument(help="The name to log in with.")],
    role: Annotated[str, Option(help="annotator, reviewer or admin.")] = "annotator",
    password: Annotated[
        str | None, Option(help="Made up and printed if not given.", envvar="TASTEMAKER_USER_PASSWORD")
    ] = None,
    database: Base = "annotations.db",
) -> None:
    """Make an account, or give an existing one a new password and role."""
    print(f"{login}: {workflow().add_person(database, login, password, role)}")


@app.command("import")
def import_(
    file: Annotated[
        Path, Argument(help="A table of items, a folder that `sample` drew, or votes that export wrote.")
    ],
    project: Annotated[str, Option(help="Its name; made if it is new.")],
    preset: Annotated[str, Option(help="Of a new project: pairs, ranking or imagereward.")] = "pairs",
    format: Annotated[str | None, Option(help="Of votes; recognised if not given.")] = None,
    database: Base = "annotations.db",
) -> None:
    """Add pictures to be compared; a file with one bad row is refused as a whole."""
    print(f"{workflow().import_file(file, database, project, preset, format)} items added to '{project}'")


@app.command()
def export(
    out: Annotated[Path, Option(help="The folder to write.")] = Path("votes"),
    format: Annotated[
        str, Option(help="jsonl, csv, parquet, imagereward, imagerewarddb-flat, -group, -pair, hpdv2 or pickapic.")
    ] = "jsonl",
    project: Only = None,
    every: Annotated[
        bool, Option("--every", help="Also what does not count: tests, repeats, late, rejected.")
    ] = False,
    database: Base = "annotations.db",
) -> None:
    """Write the answers in a format, the pictures, and the whole log beside them."""
    print(*workflow().export_votes(database, out, format, project, every), sep="\n")


@app.command()
def stats(
    project: Only = None,
    database: Base = "annotations.db",
) -> None:
    """Progress, agreement, position bias, speed and alarms as JSON, and whether log and state agree."""
    import json

    print(json.dumps(workflow().statistics(database, project), indent=1, ensure_ascii=False))


@app.command()
def select(
    prompts: Annotated[Path, Argument(help="A prompt file: text, JSON lines, GenEval metadata or a table.")],
    count: Annotated[int, Option(help="How many to choose.", min=1)] = 100,
    embedding: Annotated[str, Option(help="words, tiny-clip or sentence:PATH.")] = "words",
    k: Annotated[int, Option(help="Neighbours that a prompt votes for.", min=1)] = 150,
    group: Annotated[int, Option(help="Prompts compared with one another.", min=2)] = 20_000,
    seed: Annotated[int, Option(help="Of the groups.")] = 0,
    out: Annotated[Path, Option(help="The file to write, GenEval metadata.")] = Path("selected.jsonl"),
) -> None:
    """Choose the prompts that are worth annotating, by vote-k."""
    from ..workflows.select import select_from_file

    select_from_file(prompts, out, count, embedding, k, group, seed)
    print(out)


@app.command()
def compare(
    run_a: Annotated[
        str, Argument(help="A run, a folder that `tastemaker sample` wrote, or a model.", metavar="RUN_A")
    ],
    run_b: Annotated[str, Argument(help="Another, drawn with the same prompts and seeds.", metavar="RUN_B")],
    project: Annotated[str, Option(help="Name of the new project; from the folders if not given.")] = "",
    overlap: Annotated[int, Option(help="People who answer each pair.", min=1)] = 1,
    limit: Annotated[int, Option(help="At most so many pairs; 0 for all.", min=0)] = 0,
    database: Base = "annotations.db",
) -> None:
    """Ask people which of two runs they prefer: blind pairs, as `tastemaker evaluate human` asks first."""
    name = workflow("human").ask_people(run_a, run_b, database, project, overlap, limit)
    print(f"project '{name}'; when people have answered: tastemaker annotate preferred '{name}'")


@app.command()
def preferred(
    project: Annotated[str, Argument(help="A project that `compare` made.")],
    database: Base = "annotations.db",
) -> None:
    """How often people preferred the second run to the first, with 95 % intervals."""
    print(workflow("human").read_people(database, project).words())
