"""All tables, and triggers that keep the log append-only."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

BIG = sa.BigInteger().with_variant(sa.Integer, "sqlite")
REFUSED = "the event log is append-only"


def key(name="id"):
    return sa.Column(name, BIG, primary_key=True)


def column(name, kind, *rest, empty=False):
    return sa.Column(name, kind, *rest, nullable=empty)


def reference(name, table, empty=False, **more):
    return sa.Column(name, BIG, sa.ForeignKey(f"{table}.id"), nullable=empty, **more)


def upgrade():
    people_and_projects()
    items()
    log()
    append_only()


def people_and_projects():
    op.create_table("setting", sa.Column("name", sa.String, primary_key=True), column("value", sa.String))
    op.create_table(
        "project",
        key(),
        column("name", sa.String),
        column("settings", sa.JSON),
        column("guideline", sa.Integer),
        column("closed", sa.Boolean),
        column("created_at", sa.Double),
        sa.UniqueConstraint("name"),
    )
    op.create_table(
        "guideline",
        reference("project_id", "project", primary_key=True),
        sa.Column("version", sa.Integer, primary_key=True),
        column("text", sa.String),
        column("at", sa.Double),
    )
    op.create_table(
        "annotator",
        key(),
        column("login", sa.String, empty=True),
        column("pseudonym", sa.String),
        column("password", sa.String, empty=True),
        column("role", sa.String),
        column("epoch", sa.Integer),
        column("created_at", sa.Double),
        column("erased_at", sa.Double, empty=True),
        sa.UniqueConstraint("login"),
        sa.UniqueConstraint("pseudonym"),
    )
    op.create_table(
        "membership",
        reference("project_id", "project", primary_key=True),
        reference("annotator_id", "annotator", primary_key=True),
        column("status", sa.String),
        column("quota", sa.Integer, empty=True),
        *(column(name, sa.Integer) for name in ("done", "skips", "gold_seen", "gold_right")),
        column("consented_at", sa.Double, empty=True),
    )


def items():
    op.create_table(
        "picture",
        sa.Column("sha256", sa.String, primary_key=True),
        column("suffix", sa.String),
        column("width", sa.Integer),
        column("height", sa.Integer),
    )
    op.create_table(
        "item",
        key(),
        reference("project_id", "project"),
        column("prompt_id", sa.String),
        column("prompt", sa.String),
        column("pictures", sa.JSON),
        column("hidden", sa.JSON),
        column("about", sa.JSON),
        column("gold", sa.JSON, empty=True),
        column("testing", sa.Boolean),
        column("sensitive", sa.Boolean),
        column("wanted", sa.Integer),
        column("taken", sa.Integer),
        column("open", sa.Boolean),
        column("priority", sa.Double),
        column("shuffle", sa.Double),
        column("version", sa.Integer),
        column("created_at", sa.Double),
    )
    op.create_index("item_next", "item", ["project_id", "open", "priority", "shuffle"])
    op.create_index("item_prompt", "item", ["project_id", "prompt_id"])
    op.create_table(
        "assignment",
        key(),
        column("token", sa.String),
        reference("project_id", "project"),
        reference("item_id", "item"),
        reference("annotator_id", "annotator"),
        column("kind", sa.String),
        column("shown", sa.JSON),
        column("state", sa.String),
        column("review", sa.String),
        column("leased_at", sa.Double),
        column("expires_at", sa.Double),
        column("answered_at", sa.Double, empty=True),
        column("version", sa.Integer),
        sa.UniqueConstraint("token"),
        sa.UniqueConstraint("item_id", "annotator_id", "kind", name="assignment_once"),
    )
    op.create_index("assignment_person", "assignment", ["annotator_id", "project_id", "state", "answered_at"])
    op.create_index("assignment_lease", "assignment", ["state", "expires_at"])
    op.create_index("assignment_review", "assignment", ["review"])


def log():
    op.create_table(
        "event",
        key(),
        column("at", sa.Double),
        column("kind", sa.String),
        reference("annotator_id", "annotator", empty=True),
        reference("project_id", "project", empty=True),
        reference("item_id", "item", empty=True),
        reference("assignment_id", "assignment", empty=True),
        column("shown", sa.JSON, empty=True),
        column("answer", sa.JSON, empty=True),
        column("ms", sa.Integer, empty=True),
        column("client", sa.String, empty=True),
        column("client_token", sa.String, empty=True),
        column("guideline", sa.Integer, empty=True),
        column("app", sa.String),
        column("late", sa.Boolean),
        column("about", sa.JSON, empty=True),
        sa.UniqueConstraint("client_token"),
    )
    op.create_index("event_assignment", "event", ["assignment_id"])
    op.create_index("event_project", "event", ["project_id", "id"])


def append_only():
    if op.get_bind().dialect.name == "sqlite":
        for verb in ("UPDATE", "DELETE"):
            op.execute(
                f"CREATE TRIGGER event_no_{verb.lower()} BEFORE {verb} ON event "
                f"BEGIN SELECT RAISE(ABORT, '{REFUSED}'); END"
            )
        return
    op.execute(
        "CREATE FUNCTION event_is_append_only() RETURNS trigger LANGUAGE plpgsql AS "
        f"$$ BEGIN RAISE EXCEPTION '{REFUSED}'; END $$"
    )
    op.execute(
        "CREATE TRIGGER event_no_change BEFORE UPDATE OR DELETE OR TRUNCATE ON event "
        "FOR EACH STATEMENT EXECUTE FUNCTION event_is_append_only()"
    )
