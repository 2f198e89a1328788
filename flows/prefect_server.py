"""`python -m flows.prefect_server`: Prefect's own server, which tells its clients to come back soon.

On SQLite a transaction that read before it writes is refused when another wrote meanwhile ("database is locked"), and
the server answers 503. Prefect's client then waits 2 s (3.8.8), while the lock was gone after milliseconds: a page
that takes its slot would start late by that, and every page behind it. With a Retry-After the client obeys that. It
would also give up after five of these, and the page with it, when many processes write at once: `Prefect-Maintenance`
says that this one does not count.
"""

from __future__ import annotations

import argparse
import random
from typing import Any

import uvicorn
from prefect.server.api.server import create_app

SOON_S = 0.03, 0.1
"""From and to; Prefect's client reads fractions too. Who was refused together does not come back together."""


class Hurried:
    """The application, with a Retry-After on every 503 that has none; such a 503 is not counted by the client."""

    def __init__(self, app: Any) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI 3."""

        async def hurried(message: Any) -> None:
            if message["type"] == "http.response.start" and message["status"] == 503:
                names = {name.lower() for name, _ in message["headers"]}
                if b"retry-after" not in names:
                    soon = f"{random.uniform(*SOON_S):.3f}".encode()  # noqa: S311
                    said = (b"retry-after", soon), (b"prefect-maintenance", b"true")
                    message = {**message, "headers": [*message["headers"], *said]}
            await send(message)

        await self._app(scope, receive, hurried)


def main() -> None:
    """Serve API and UI until SIGTERM, as `prefect server start` does."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, required=True)
    options = parser.parse_args()
    app = Hurried(create_app(final=True))
    uvicorn.run(app, host=options.host, port=options.port, timeout_keep_alive=5, log_level="warning")


if __name__ == "__main__":
    main()
