#!/bin/sh
# Entrypoint of the test image: makes a database cluster once, then is the server.  Arguments go to postgres: -c ssl=on …
# As in the well-known image: POSTGRES_PASSWORD (or POSTGRES_PASSWORD_FILE), POSTGRES_USER (postgres), POSTGRES_DB (as the user), PGDATA, and
# *.sql in /docker-entrypoint-initdb.d.
set -eu
export PGDATA="${PGDATA:-/var/lib/postgresql/data}"
user=${POSTGRES_USER:-postgres}
db=${POSTGRES_DB:-$user}

if [ ! -s "$PGDATA/PG_VERSION" ]; then
	[ -z "${POSTGRES_PASSWORD_FILE:-}" ] || POSTGRES_PASSWORD=$(cat "$POSTGRES_PASSWORD_FILE")
	umask 077
	echo "${POSTGRES_PASSWORD:?set it, or POSTGRES_PASSWORD_FILE}" >/tmp/password
	initdb --username="$user" --pwfile=/tmp/password --auth-local=trust --auth-host=scram-sha-256 --locale=C --encoding=UTF8 --no-sync
	rm /tmp/password
	echo 'host all all all scram-sha-256' >>"$PGDATA/pg_hba.conf"
	pg_ctl -w start -o "-c listen_addresses='' -c unix_socket_directories=/tmp"
	[ "$db" = postgres ] || psql -h /tmp -U "$user" -d postgres -v ON_ERROR_STOP=1 -c "CREATE DATABASE \"$db\""
	for f in /docker-entrypoint-initdb.d/*.sql; do
		[ ! -e "$f" ] || psql -h /tmp -U "$user" -d "$db" -v ON_ERROR_STOP=1 -f "$f"
	done
	pg_ctl -w stop -m fast
fi
exec postgres -c listen_addresses='*' -c unix_socket_directories=/tmp "$@"
