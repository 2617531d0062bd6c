"""A real PgBouncer in transaction mode before the tests' server, where one is installed."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest
from sqlalchemy.engine import URL, make_url

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = shutil.which("pgbouncer") or shutil.which("pgbouncer", path="/usr/sbin")
SERVER_CONNECTIONS = 4
"""Fewer than a worker has, so that they are really shared."""

# No parameter is ignored: what a library must not send, such as `options`, is refused.
CONFIGURATION = """\
[databases]
* = host={host} port={port} user={user}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = {connections}
max_client_conn = 200
logfile = {folder}/pgbouncer.log
pidfile = {folder}/pgbouncer.pid
"""


@pytest.fixture
def pooled_url(database_url: str) -> Iterator[str]:
    """The URL of this test's database, through PgBouncer in transaction mode."""
    if PROGRAM is None:
        pytest.skip("needs PgBouncer: apt-get install pgbouncer")
    url = make_url(database_url)
    host = str(url.query.get("host") or url.host or "localhost")
    # It refuses to run as root; who owns the server's socket can reach it.
    account = pwd.getpwuid(Path(host).stat().st_uid) if host.startswith("/") else None
    folder = Path(f"/tmp/smp-pgbouncer-{os.getpid()}")
    folder.mkdir(mode=0o755)
    listen = _free_port()
    written = CONFIGURATION.format(
        host=host,
        port=url.query.get("port") or url.port or 5432,
        user=url.username,
        listen=listen,
        connections=SERVER_CONNECTIONS,
        folder=folder,
    )
    (folder / "pgbouncer.ini").write_text(written)
    is_root = os.geteuid() == 0
    user = account.pw_name if account and account.pw_uid else "nobody"
    if is_root:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    process = subprocess.Popen(
        [PROGRAM, "-q", *(["-u", user] if is_root else []), str(folder / "pgbouncer.ini")]
    )
    try:
        pooled = url.set(host="127.0.0.1", port=listen, query={"sslmode": "disable"})
        _wait(pooled, folder)
        yield pooled.render_as_string(hide_password=False)
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _wait(url: URL, folder: Path) -> None:
    plain = url.set(drivername="postgresql").render_as_string(hide_password=False)
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(plain, autocommit=True, prepare_threshold=None).close()
        except psycopg.OperationalError as error:
            if time.monotonic() > deadline:
                log = (folder / "pgbouncer.log").read_text()
                raise AssertionError(f"PgBouncer does not answer: {error}\n{log}") from error
            time.sleep(0.05)
        else:
            return
