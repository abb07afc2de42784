"""A database of schema version 1 (events and inputs in other places, no sparse indexes) is migrated at start, and says the same as before."""
import json
import sqlite3

from fake_agent import Instance



def downgrade(path):
    """What version 1 had, from what version 2 has."""
    db = sqlite3.connect(path)
    db.executescript("""
        CREATE TABLE events ("operation" TEXT NOT NULL, "seq" INTEGER NOT NULL, "at" INTEGER NOT NULL DEFAULT 0,
            "attempt" INTEGER NOT NULL DEFAULT 0, "event" TEXT, "detail" TEXT, "instance" TEXT, PRIMARY KEY ("operation","seq"));
        ALTER TABLE operations ADD COLUMN input TEXT;
        UPDATE operations SET input = (SELECT input FROM inputs WHERE operation = operations.id);
        DROP TABLE inputs;
        ALTER TABLE operations DROP COLUMN input_bytes;
        DROP INDEX ix_operations_operations_by_queue;
        CREATE INDEX "ix_operations_operations_by_queue" ON "operations" ("agent","queue","rank","id");
    """)
    for op, timeline in db.execute("SELECT id, timeline FROM operations").fetchall():
        for seq, line in enumerate(timeline.split("\n"), 1):
            at, attempt, event, instance, *detail = line.split(" ", 4)
            db.execute("INSERT INTO events VALUES (?, ?, ?, ?, ?, ?, ?)",
                       (op, seq, int(at), int(attempt), event, json.loads(detail[0]) if detail else None,
                        None if instance == "-" else instance))
    events = db.execute("SELECT count(*) FROM events").fetchone()[0]
    db.execute("ALTER TABLE operations DROP COLUMN timeline")
    db.execute("PRAGMA user_version=1")
    db.commit()
    db.close()
    return events


def test_version_1(stack):
    gw = stack.gateway()
    agent = Instance(gw, gw.agent("w"), slots=1)
    ops = [gw.submit("health", agent="w", idempotency_key="first", labels={"k": "Zürich"})]
    lease, = agent.exchange()["leases"]
    assert agent.put(lease)[0] == 200
    ops.append(gw.submit("health", agent="w"))
    assert gw.api("POST", f"/operations/{ops[1]['id']}/cancel", {"reason": 'it\'s "so", ü\nand more'})
    ops.append(gw.submit("network.tcp", {"host": "é.example", "port": 1}, agent="w"))
    before = [gw.operation(op) for op in ops]
    assert [op["state"] for op in before] == ["succeeded", "cancelled", "queued"]
    gw.stop()

    assert downgrade(gw.home / "gateway.db") == sum(len(op["events"]) for op in before)
    gw.restart()
    after = [gw.operation(op) for op in ops]
    for op in (before[2], after[2]):
        op.pop("why")  # how long ago the agent was seen is not in the database
    assert after == before
    again = gw.request("POST", "/api/v1/operations", {"type": "health", "input": {}, "agent": "w", "idempotency_key": "first",
                                                      "labels": {"k": "Zürich"}})
    assert again.status == 200 and again.json()["id"] == ops[0]["id"], "the key is still known"
    agent = Instance(gw, agent.key, slots=1)
    lease, = agent.exchange()["leases"]
    assert lease["operation"] == ops[2]["id"] and lease["input"] == {"host": "é.example", "port": 1}
    assert agent.put(lease)[0] == 200
    assert gw.operation(ops[2])["state"] == "succeeded"
    db = sqlite3.connect(gw.home / "gateway.db")
    assert db.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'events'").fetchone() == (0,), "the old table is gone"
    db.close()
