"""Run the server: one process, one database, no request to anywhere."""

from __future__ import annotations

import gc
import sys
from collections.abc import Mapping

import uvicorn

from ..page_server import listen
from .database import Database
from .web.app import create_app
from .web.state import Exporter

# SQLite lets go of the interpreter's lock at each statement; the writer would wait Python's 5 ms for it each time
SWITCH = 0.0001  # seconds


def serve(
    database: Database,
    host: str = "127.0.0.1",
    port: int = 8000,
    secure: bool = False,
    exporters: Mapping[str, Exporter] | None = None,
    trusted_proxy: str | None = None,
) -> None:
    """Serve until interrupted; answers that were sent before are still written.

    host: 127.0.0.1 is this machine only, 0.0.0.0 every machine that reaches it. secure: cookies over HTTPS only, for
    a server behind a proxy that speaks it. trusted_proxy: its address, whose word on who is asking is believed.
    """
    place = listen(host, port)
    sys.setswitchinterval(SWITCH)
    gc.set_threshold(50_000, 20, 20)  # requests leave few cycles behind: look for them less often
    settings = uvicorn.Config(
        create_app(database, secure, exporters),
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=trusted_proxy is not None,
        forwarded_allow_ips=trusted_proxy,
        timeout_graceful_shutdown=5,
    )
    uvicorn.Server(settings).run(sockets=[place])
