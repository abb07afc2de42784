"""TCP proxies that break as networks do: one Link between each instance and the gateway, one between the clients and the gateway.

  pass       as if it were not there
  refuse     connections are refused, open ones reset
  blackhole  connections are accepted; what comes is swallowed, both ways
  up, down   only the way to the server, or only the way back, swallows: requests that never arrive, answers that never come
  reset      open connections are reset, new ones after a few bytes
  cut        each connection is reset after `bytes` bytes of one way
  slow       each piece of at most 4 KiB takes `delay` seconds

A connection that lost bytes never passes any again: when the fault ends it is reset, or with hang=True stays silent until its peer gives up.
All in one event loop; set() may be called from any thread.
"""
import asyncio
import contextlib
import random
import socket
import struct

MODES = ("refuse", "blackhole", "up", "down", "reset", "cut", "slow")
RST = struct.pack("ii", 1, 0)  # SO_LINGER: close() resets


class Connection:
    def __init__(self, writer):
        self.writers = [writer]
        self.passed = {"up": 0, "down": 0}
        self.deaf = False  # it has lost bytes

    def reset(self):
        for w in self.writers:
            sock = w.get_extra_info("socket")
            with contextlib.suppress(OSError):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST)
            w.transport.abort()


class Link:
    def __init__(self, name, loop, target_port, seed):
        self.name, self.target_port, self.loop = name, target_port, loop
        self.mode, self.params = "pass", {}
        self.rng = random.Random(f"{seed}/link/{name}")
        self.connections = set()
        self.carried = 0
        self.server = self.placeholder = None
        self.port = 0
        self.call(self._listen())

    def call(self, coroutine):
        """From another thread: run it in the loop, and wait."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(30)

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    def set(self, mode, **params):
        self.call(self._set(mode, params))

    # --- in the loop

    def _bound(self):
        s = socket.socket()
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)  # the next one is bound before this one is closed
        s.bind(("127.0.0.1", self.port))
        self.port = s.getsockname()[1]
        return s

    async def _listen(self):
        s, self.placeholder = self.placeholder or self._bound(), None
        self.server = await asyncio.start_server(self._serve, sock=s, backlog=512)

    async def _set(self, mode, params):
        old, hang = self.mode, self.params.get("hang")
        self.mode, self.params = mode, params
        for c in list(self.connections):
            if mode in ("refuse", "reset") or (old != "pass" and c.deaf and not hang):
                c.reset()
        if mode == "refuse" and self.server:
            self.placeholder = self._bound()  # it keeps the port, which somebody's connection would take, and does not listen
            self.server.close()
            self.server = None
            await asyncio.sleep(0)
        elif mode != "refuse" and not self.server:
            await self._listen()

    async def _serve(self, reader, writer):
        c = Connection(writer)
        self.connections.add(c)
        try:
            if self.mode in ("blackhole", "up"):
                c.deaf = True
                while await reader.read(65536):
                    pass
                return
            up_reader, up_writer = await asyncio.open_connection("127.0.0.1", self.target_port)
            c.writers.append(up_writer)
            ways = [asyncio.ensure_future(self._pump(c, "up", reader, up_writer)),
                    asyncio.ensure_future(self._pump(c, "down", up_reader, writer))]
            await asyncio.gather(*ways)
        except (OSError, asyncio.IncompleteReadError):
            c.reset()
        finally:
            self.connections.discard(c)
            for w in c.writers:
                w.close()

    async def _pump(self, c, way, reader, writer):
        while data := await reader.read(65536):
            mode, params = self.mode, self.params
            if c.deaf or mode in ("blackhole", way):
                c.deaf = True
                continue
            if mode == "slow":
                for i in range(0, len(data), 4096):
                    await asyncio.sleep(params["delay"])
                    await self._send(c, way, writer, data[i:i + 4096])
                continue
            limit = {"reset": self.rng.randrange(1, 400), "cut": params.get("bytes", 1)}.get(mode)
            if limit is not None and way == params.get("way", "up") and c.passed[way] + len(data) >= limit:
                await self._send(c, way, writer, data[:max(0, limit - c.passed[way])])
                await asyncio.sleep(0.01)  # so that what was sent arrives before the reset
                c.reset()
                return
            await self._send(c, way, writer, data)
        if not c.deaf:
            with contextlib.suppress(OSError):
                writer.write_eof()

    async def _send(self, c, way, writer, data):
        c.passed[way] += len(data)
        self.carried += len(data)
        writer.write(data)
        await writer.drain()
