"""A loopback HTTP server that answers by script and misbehaves on purpose, for the tests of this folder."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from dinmo_dbt.salesforce.request import API_VERSION

ORG_ID = "00D000000000001EAA"
TOKEN = "00D000000000001!CANARY_TOKEN"
VERSION = f"/services/data/v{API_VERSION}"
DATA = f"{VERSION}/"


@dataclass
class Answer:
    """One scripted reply. `cut`: the connection closes after that many bytes of the body (0: before any reply);
    `pause_s`: so long after each of its bytes."""

    status: int = 200
    body: object = None
    headers: dict[str, str] = field(default_factory=dict)
    cut: int | None = None
    pause_s: float = 0.0


LOST = Answer(cut=0)


@dataclass
class Seen:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes


class Server:
    """`on(method, path, *answers)`: given in order, the last one for ever."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.seen: list[Seen] = []
        self.refuses_token = ""
        self.sip_s = 0.0  # so long before each 64 kB of a request
        self._script: dict[tuple[str, str], list[Answer]] = {}
        self.closing = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True  # a reply goes out in two writes, and the second would wait 40 ms

            def answer(self) -> None:
                body = b"".join(self.sips(int(self.headers.get("Content-Length") or 0)))
                path = self.path.partition("?")[0]
                owner.seen.append(Seen(self.command, self.path, dict(self.headers), body))
                answers = owner._script.get((self.command, path)) or [Answer(404, [{"errorCode": "NOT_FOUND"}])]
                if owner.refuses_token and self.headers["Authorization"] == f"Bearer {owner.refuses_token}":
                    answers = [EXPIRED]
                given = answers.pop(0) if len(answers) > 1 else answers[0]
                content = given.body if isinstance(given.body, bytes) else json.dumps(given.body).encode()
                if given.body is None:
                    content = b""
                if given.cut == 0:
                    self.close_connection = True
                    return
                (self.send_response_only if "Date" in given.headers else self.send_response)(given.status)
                self.send_header("Content-Length", str(len(content)))
                for name, value in given.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                for byte in content if given.pause_s else ():
                    if owner.closing.wait(given.pause_s):
                        break
                    self.wfile.write(bytes([byte]))
                self.wfile.write(b"" if given.pause_s else content[: given.cut])
                self.close_connection = given.cut is not None

            def sips(self, length: int) -> Iterator[bytes]:
                for start in range(0, length, 1 << 16):
                    owner.closing.wait(owner.sip_s)
                    yield self.rfile.read(min(1 << 16, length - start))

            do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = answer

            def log_message(self, *args: object) -> None:
                pass

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self._http.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients hang up, on purpose
        scheme, host = "http", "127.0.0.1"
        if tls is not None:
            self._http.socket = tls.wrap_socket(self._http.socket, server_side=True)
            scheme, host = "https", "localhost"
        self.url = f"{scheme}://{host}:{self._http.server_address[1]}"
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.on("GET", "/services/oauth2/userinfo", Answer(200, USERINFO))

    def on(self, method: str, path: str, *answers: Answer) -> None:
        self._script[method, path if path.startswith("/") else DATA + path] = list(answers)

    def asked(self, method: str, path: str) -> list[Seen]:
        path = path if path.startswith("/") else DATA + path
        return [seen for seen in self.seen if seen.method == method and seen.path.partition("?")[0] == path]

    def close(self) -> None:
        self.closing.set()
        self._http.shutdown()
        self._http.server_close()
        self._thread.join()


USERINFO = {"organization_id": ORG_ID, "user_id": "005000000000001AAA", "preferred_username": "u@example.com"}
EXPIRED = Answer(401, [{"message": "Session expired or invalid", "errorCode": "INVALID_SESSION_ID"}])


def token_reply(server: Server, token: str = TOKEN, org_id: str = ORG_ID, **changes: object) -> Answer:
    content = {
        "access_token": token,
        "instance_url": server.url,
        "id": f"{server.url}/id/{org_id}/005000000000001AAA",
        "token_type": "Bearer",
    }
    return Answer(200, {**content, **changes})
