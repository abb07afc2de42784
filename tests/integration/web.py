"""Small HTTP servers of the tests: each is a function from a request to an answer."""
import http.server
import json
import re
import ssl
import sys
import threading
import urllib.parse


class Web(http.server.ThreadingHTTPServer):
    """An HTTP/1.1 server in threads of its own.

    answer(request) has .method, .path, .headers and .body, and returns (status, body, headers), or None to cut the connection.  Date,
    Server, Content-Type (application/json) and Content-Length are set where the headers, spelt so, do not.  Chunked bodies are not read.
    With a certificate it speaks TLS."""

    def __init__(self, answer, host="127.0.0.1", cert=None, key=None):
        self.answer = answer
        self.tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER) if cert else None
        if cert:
            self.tls.load_cert_chain(cert, key)
        super().__init__((host, 0), _Request)
        self.port = self.server_address[1]
        self.url = f"{'https' if cert else 'http'}://{host}:{self.port}"
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def finish_request(self, request, client_address):
        if self.tls:  # the handshake belongs into the connection's thread
            request = self.tls.wrap_socket(request, server_side=True)
        super().finish_request(request, client_address)

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], OSError):  # clients that go away are part of the tests
            super().handle_error(request, client_address)

    def stop(self):
        """No more connections; those that are open are served until their clients end them."""
        self.shutdown()
        self.server_close()

    def __exit__(self, *exc):
        self.stop()


class _Request(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def reply(self):
        self.method = self.command
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        answer = self.server.answer(self)
        if answer is None:
            self.close_connection = True
            return
        status, body, headers = answer
        if status in (204, 304):  # they have none
            body = b""
        self.send_response_only(status)
        for name, value in {"Date": self.date_time_string(), "Server": self.version_string(), "Content-Type": "application/json",
                            "Content-Length": len(body), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.method != "HEAD":
            self.wfile.write(body)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = do_PATCH = do_CONNECT = reply

    def log_message(self, *args):
        pass


class Origin(Web):
    """Answers with what it was asked, as JSON, and remembers it in .seen.
    /status/N answers N, /bytes/N sends N bytes, /redirect?to=URL redirects; the rest echoes."""

    def __init__(self, cert=None, key=None):
        self.seen = []
        super().__init__(self._echo, cert=cert, key=key)

    def _echo(self, r):
        what = {"method": r.method, "path": r.path, "headers": dict(r.headers.items()), "body": r.body.decode("latin-1")}
        self.seen.append(what)
        u = urllib.parse.urlsplit(r.path)
        m = re.match(r"/(status|bytes)/(\d+)$", u.path)
        if m and m.group(1) == "bytes":
            return 200, b"x" * int(m.group(2)), {}
        if u.path == "/redirect":
            return 302, json.dumps(what).encode(), {"Location": urllib.parse.parse_qs(u.query)["to"][0]}
        return int(m.group(2)) if m else 200, json.dumps(what).encode(), {}


class Answers(Web):
    """.answers is {"METHOD /path": (status, content type, body)}, with "METHOD *" for all other paths, .seen a list of (path, headers,
    body)."""

    def __init__(self, answers):
        self.answers, self.seen = answers, []
        super().__init__(self._look_up)

    def _look_up(self, r):
        self.seen.append((r.path, r.headers, r.body.decode()))
        status, kind, text = (self.answers.get(f"{r.method} {r.path}") or
                              self.answers.get(f"{r.method} *", (404, "text/plain", "no")))
        return status, text.encode(), {"Content-Type": kind}
