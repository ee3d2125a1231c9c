"""Run the server: one process, one database, no request to anywhere."""

from __future__ import annotations

from collections.abc import Mapping

import uvicorn

from ..errors import expect
from .database import Database
from .web.app import create_app
from .web.state import Exporter


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
    expect(0 <= port < 65_536, "a port from 0 to 65535", port)
    app = create_app(database, secure, exporters)
    uvicorn.run(
        app,
        host=host,
        port=port,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,
        proxy_headers=trusted_proxy is not None,
        forwarded_allow_ips=trusted_proxy,
        timeout_graceful_shutdown=5,
    )
