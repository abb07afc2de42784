"""A small HTTP/1.1 client for many waiting requests in one event loop: one connection, kept open while it can be.

Broken: the request's outcome is not known, whatever the reason.  .sent says if any byte of it was written."""
import asyncio
import errno
import json


class Broken(Exception):
    def __init__(self, reason, sent):
        super().__init__(reason)
        self.reason, self.sent = reason, sent


class Client:
    """address: a port of this host, or (host, port)."""

    def __init__(self, address, token):
        self.host, self.port = address if isinstance(address, tuple) else ("127.0.0.1", address)
        self.token = token
        self.reader = self.writer = None

    def close(self):
        if self.writer:
            self.writer.transport.abort()
        self.reader = self.writer = None

    async def request(self, method, path, body=None, timeout=10):
        """(status, body as bytes)."""
        sent = False
        if self.writer and (self.reader.at_eof() or self.reader.exception()):
            self.close()  # the server has closed it meanwhile
        fresh = self.writer is None
        try:
            async with asyncio.timeout(timeout):
                if fresh:
                    self.reader, self.writer = await asyncio.open_connection(self.host, self.port, limit=1 << 20)
                data = json.dumps(body).encode() if body is not None else b""
                head = (f"{method} {path} HTTP/1.1\r\nHost: {self.host}:{self.port}\r\nAuthorization: Bearer {self.token}\r\n"
                        + (f"Content-Type: application/json\r\nContent-Length: {len(data)}\r\n" if body is not None else "") + "\r\n")
                sent = True
                self.writer.write(head.encode() + data)
                await self.writer.drain()
                return await self._answer()
        except TimeoutError:
            self.close()
            raise Broken("timeout", sent) from None
        except (OSError, EOFError, ValueError, asyncio.LimitOverrunError) as e:
            self.close()
            reason = "closed unanswered" if sent and not fresh and isinstance(e, asyncio.IncompleteReadError) and not e.partial \
                else errno.errorcode.get(e.errno, "OSError") if type(e) is OSError else type(e).__name__
            raise Broken(reason, sent) from None
        except BaseException:  # cancelled in the middle: nothing may follow on this connection
            self.close()
            raise

    async def _answer(self):
        head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        status = int(head[0].split()[1])
        fields = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
        if fields.get("transfer-encoding", "").lower() == "chunked":
            body = await self._chunks()
        elif "content-length" in fields:
            body = await self.reader.readexactly(int(fields["content-length"]))
        else:
            body = b"" if status in (204, 304) else await self.reader.read()
        if fields.get("connection", "").lower() == "close":
            self.close()
        return status, body

    async def _chunks(self):
        out = b""
        while size := int((await self.reader.readuntil(b"\r\n")).split(b";")[0], 16):
            out += await self.reader.readexactly(size)
            await self.reader.readexactly(2)
        while await self.reader.readuntil(b"\r\n") != b"\r\n":
            pass
        return out
