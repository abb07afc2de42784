"""What the tests of `query` share: one gateway, one agent beside one PostgreSQL, integration "pg" between them."""


class DataPath:
    def __init__(self, stack, *flags, agent_flags=None, env=None, pg=None):
        self.stack = stack
        self.gw = stack.gateway(*flags)
        self.agent = stack.agent(self.gw, *(flags if agent_flags is None else agent_flags), env=env)
        self.pg = pg or stack.postgres(name="data")
        self.gw.integration("pg", self.agent.key, "postgres", self.pg.connect_args())

    def submit(self, sql, params=None, integration="pg", mode=None, **fields):
        given = {"sql": sql, "params": params, "mode": mode}
        return self.gw.submit("query", {k: v for k, v in given.items() if v is not None}, integration=integration, **fields)

    def query(self, sql, params=None, timeout=60, **kw):
        """Submit and wait for the end; the operation's document."""
        return self.gw.wait(self.submit(sql, params, **kw), timeout=timeout)

    def rows(self, sql, params=None, **kw):
        """Rows of a query that must succeed."""
        op = self.query(sql, params, **kw)
        assert op["state"] == "succeeded", op
        rows = self.gw.rows(op)
        assert op["result"]["rows"] == len(rows)
        return rows
