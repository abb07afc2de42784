"""The load: users that submit operations, follow each to its end and write down what they were told.

Each user does one thing after the other, so the backlog is at most the number of users; a common pace bounds the rate.  Whatever was
not answered is asked again: submissions with the same idempotency key.  Effects are rows of the table `effects`, by key.
"""
import asyncio
import collections
import hashlib
import json
import random
import time

from client import Broken, Client

TERMINAL = ("succeeded", "failed", "cancelled", "expired", "unknown")
EFFECT = ("INSERT INTO effects (key, operation, attempt) SELECT $1, current_setting('postern.operation'), "
          "current_setting('postern.attempt')::int FROM pg_sleep({sleep})")
ROWS = "SELECT i, md5(i::text || $1) FROM generate_series(1, {n}) AS i ORDER BY i"
SCHEMA = "CREATE TABLE effects (key text NOT NULL, operation text, attempt int NOT NULL, at timestamptz DEFAULT clock_timestamp())"


def rows_digest(key, n):
    """SHA-256 of the JSON Lines that ROWS must give."""
    text = "".join(f'[{i},"{hashlib.md5(f"{i}{key}".encode()).hexdigest()}"]\n' for i in range(1, n + 1))
    return hashlib.sha256(text.encode()).hexdigest()


class Kind:
    """A kind of operation.  sleep: range of seconds in the data source; rows: of the result; deadline: range of seconds."""

    def __init__(self, weight, sleep=None, rows=None, deadline=None, cancel=None):
        self.weight, self.sleep, self.rows, self.deadline, self.cancel = weight, sleep, rows, deadline, cancel

    @property
    def effect(self):
        return self.rows is None


RANDOM = {
    "write": Kind(48),
    "slow": Kind(8, sleep=(0.2, 2)),
    "read": Kind(22, rows=5),
    "read-large": Kind(6, rows=3000),  # more than 32 KiB when compressed: body files in the spool, blobs at the gateway
    "cancelled": Kind(8, sleep=(0, 2), cancel=(0, 2)),
    "deadline": Kind(6, sleep=(0, 4), deadline=(1, 3)),
}
ROLLING = {"write": Kind(50), "slow": Kind(20, sleep=(0.2, 2)), "read": Kind(25, rows=5), "read-large": Kind(5, rows=3000)}
LONG = {"slow": Kind(70, sleep=(3, 9)), "long-read": Kind(30, sleep=(3, 9), rows=5)}  # old attempts meet new ones
OUTAGE = {"slow": Kind(80, sleep=(5, 40)), "long-read": Kind(20, sleep=(5, 20), rows=3000)}


class Workload:
    """In one event loop.  numbers: what the clients met, by reason."""

    def __init__(self, history, port, token, integrations, seed, kinds=RANDOM, users=160, rate=100.0, deliveries=("at-least-once", "at-most-once")):
        self.history, self.port, self.token, self.integrations, self.seed = history, port, token, integrations, seed
        self.kinds, self.n_users, self.interval, self.deliveries = kinds, users, 1 / rate, deliveries
        self.numbers = collections.Counter()
        self.accepted = {}  # op -> (key, kind name, expect)
        self.keys = {}      # key -> kind name, of every submission
        self.ended = collections.Counter()
        self.open = set()
        self.stopping = False
        self._next = 0.0
        self.tasks = []

    def start(self):
        self.tasks = [asyncio.ensure_future(self._user(i)) for i in range(self.n_users)]

    def stop(self):
        """No new submissions; what is open is followed on."""
        self.stopping = True

    async def wait(self, seconds):
        """For the users to be through.  Those that are not are stopped."""
        if self.tasks:
            _, pending = await asyncio.wait(self.tasks, timeout=seconds)
            for t in pending:
                t.cancel()
            await asyncio.gather(*pending, return_exceptions=True)
        for t in self.tasks:
            if not t.cancelled() and t.exception():
                raise t.exception()

    def failed(self):
        """A user that ended by a fault of this program, or None."""
        return next((t.exception() for t in self.tasks if t.done() and not t.cancelled() and t.exception()), None)

    # --- one user

    async def _pace(self):
        now = time.monotonic()
        self._next = max(self._next + self.interval, now - 1)  # what an outage cost is caught up for a second only
        if self._next > now:
            await asyncio.sleep(self._next - now)

    async def _user(self, i):
        rng = random.Random(f"{self.seed}/user/{i}")
        client = Client(self.port, self.token)
        names = list(self.kinds)
        weights = [self.kinds[n].weight for n in names]
        n = 0
        while True:
            await self._pace()
            if self.stopping:
                client.close()
                return
            n += 1
            name = rng.choices(names, weights)[0]
            await self._operation(client, rng, f"{self.seed}-{i}-{n}", name, self.kinds[name])

    async def _operation(self, client, rng, key, name, kind):
        delivery = rng.choice(self.deliveries)
        expect = rows_digest(key, kind.rows) if kind.rows else None
        sleep = round(rng.uniform(*kind.sleep), 2) if kind.sleep else 0
        sql = (ROWS.format(n=kind.rows) if kind.rows else EFFECT.format(sleep=sleep))
        if kind.rows and sleep:
            sql = f"WITH s AS MATERIALIZED (SELECT pg_sleep({sleep})) " + sql.replace("AS i ", "AS i, s ", 1)
        body = {"type": "query", "integration": rng.choice(self.integrations), "delivery": delivery, "idempotency_key": key,
                "input": {"sql": sql, "params": [key], "mode": "write" if kind.effect else "read"}, "labels": {"key": key}}
        if kind.deadline:
            body["deadline_s"] = rng.randint(*kind.deadline)
        self.keys[key] = name
        self.history.add("submit", key=key, delivery=delivery, kind=name, expect=expect)
        status, doc = await self._ask(client, rng, "POST", "/api/v1/operations", body, what="submit")
        if status >= 400:
            self.history.add("refused", key=key, status=status, body=doc)
            return
        op = doc["id"]
        self.accepted[op] = (key, name, expect)
        self.open.add(op)
        self.history.add("accepted", key=key, op=op)
        if kind.cancel:
            await asyncio.sleep(rng.uniform(*kind.cancel) ** 2 / 2)
            self.history.add("cancel", op=op)
            await self._ask(client, rng, "POST", f"/api/v1/operations/{op}/cancel", {"reason": "changed my mind"}, what="cancel")
        await self._follow(client, rng, op, doc)
        self.open.discard(op)

    async def _follow(self, client, rng, op, doc):
        seen = None
        while True:
            if (doc["state"], doc["attempt"]) != seen:
                seen = doc["state"], doc["attempt"]
                self.history.add("seen", op=op, state=seen[0], attempt=seen[1])
            if doc["state"] in TERMINAL:
                self.ended[doc["state"]] += 1
                return
            status, doc = await self._ask(client, rng, "GET", f"/api/v1/operations/{op}?wait=10", what="wait", wait=10)
            if status != 200:
                self.history.add("seen", op=op, state=f"HTTP {status}", attempt=0)
                return

    async def _ask(self, client, rng, method, path, body=None, what="", wait=0):
        """Until there is a definite answer: (status, document)."""
        while True:
            try:
                status, data = await client.request(method, path, body, timeout=wait + rng.uniform(2, 10))
                if status < 500 and status not in (408, 429):
                    return status, json.loads(data) if data else None
                self.numbers[f"{what}: HTTP {status}"] += 1
            except Broken as e:
                self.numbers[f"{what}: {e.reason}" + ("" if e.sent else ", nothing sent")] += 1
            await asyncio.sleep(rng.uniform(0.05, 1))
