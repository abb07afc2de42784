#!/bin/bash
# rows_bench.sh BUILD_DIR [ROWS [SAMPLES]]: our query -> JSON Lines against psql's binary COPY and against a Python cursor with json,
# in one session, samples taken in turn.  Run by itself it starts a PostgreSQL of its own (tests/with-postgres.sh).
set -eu
here=$(cd "$(dirname "$0")" && pwd)
if [ -z "${PG_SOCKET_DIR:-}" ]; then
	exec "$here/../tests/with-postgres.sh" --conf "jit = off" --conf "shared_buffers = 1GB" --conf "max_wal_size = 8GB" "$0" "$@"
fi
build=$1 rows=${2:-5000000} samples=${3:-3}
export PGHOST=$PG_SOCKET_DIR
psql -qX <<END
CREATE UNLOGGED TABLE bench AS
SELECT i::int8 AS id, (i % 1000)::int4 AS kind, (random() * 1000000)::numeric(12,2) AS amount, random() * 1000 AS ratio,
	timestamptz '2024-01-01 00:00Z' + i * interval '1.234567 s' AS at, CASE WHEN i % 7 = 0 THEN NULL ELSE i % 2 = 0 END AS flag,
	'customer ' || i || ' of the ' || md5(i::text) AS name, CASE WHEN i % 5 = 0 THEN NULL ELSE 'note "' || i || '"' END AS note
FROM generate_series(1, $rows) i;
VACUUM (FREEZE, ANALYZE) bench;
END
exec python3 "$here/rows_peer.py" "$build/bench/bench_rows" "$rows" "$samples"
