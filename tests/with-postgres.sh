#!/bin/bash
# Run a command with a PostgreSQL server of its own:
#   tests/with-postgres.sh [--tls] [--conf 'name = value']... [--user NAME:PASSWORD]... [--keep-log FILE] COMMAND [ARGUMENT]...
# The server listens on a free loopback port and on a Unix socket in a new folder, and is stopped (by its process id) however the
# command ends.  For the command: PGHOST (127.0.0.1), PGPORT, PGUSER (postgres, trusted, superuser), PGDATABASE (postgres),
# PGSSLMODE (disable), PG_SOCKET_DIR, PG_DATA_DIR, PG_PID; with --tls also PG_CA_FILE (the certificate names localhost and
# 127.0.0.1) and PG_OTHER_CA_FILE (an authority that did not sign it).  --user adds a login that needs its password (scram); names
# that begin with "tls" may log in over TLS only.  Exit status: the command's; 77 (skipped) when there is no PostgreSQL here.
set -eu -o pipefail

die() {
	echo "with-postgres: $*" >&2
	exit 99
}

tls='' conf=() users=() keep_log=''
while [ $# -gt 0 ]; do
	case $1 in
	--tls) tls=1 ;;
	--conf) conf+=("$2") && shift ;;
	--user) users+=("$2") && shift ;;
	--keep-log) keep_log=$2 && shift ;;
	--) shift && break ;;
	-*) die "unknown option $1" ;;
	*) break ;;
	esac
	shift
done
[ $# -gt 0 ] || die "no command"

bin=${PG_BIN:-}
for dir in /usr/lib/postgresql/*/bin; do
	[ -n "$bin" ] || { [ -x "$dir/initdb" ] && bin=$dir; }
done
[ -n "$bin" ] || { command -v initdb >/dev/null && bin=$(dirname "$(command -v initdb)"); } || {
	echo "1..0 # SKIP no PostgreSQL server is installed"
	exit 77
}

dir=$(mktemp -d /tmp/postern-pg.XXXXXX) # short: a Unix socket's path has 107 bytes at most
server='' child=''
# shellcheck disable=SC2317 # reached by the trap below, which this version does not see
cleanup() {
	status=$?
	trap '' INT TERM HUP
	set +e
	[ -z "$child" ] || kill -TERM "$child" 2>/dev/null
	if [ -n "$server" ] && kill -INT "$server" 2>/dev/null; then # fast shutdown
		for _ in $(seq 100); do
			kill -0 "$server" 2>/dev/null || break
			sleep 0.1
		done
		kill -QUIT "$server" 2>/dev/null
		wait "$server" 2>/dev/null
	fi
	[ -z "$keep_log" ] || cp "$dir/log" "$keep_log"
	rm -rf "$dir"
	exit "$status"
}
trap cleanup EXIT
trap 'exit 129' HUP
trap 'exit 130' INT
trap 'exit 143' TERM

as=()
if [ "$(id -u)" = 0 ]; then # the server refuses to run as root
	id postgres >/dev/null 2>&1 || die "root needs a user 'postgres' to run the server as"
	chown postgres "$dir"
	as=(setpriv --reuid=postgres --regid="$(id -g postgres)" --clear-groups)
fi
data=$dir/data
chmod 755 "$dir"
: >"$dir/log"
"${as[@]}" "$bin/initdb" -D "$data" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync --no-instructions >"$dir/initdb.log" 2>&1 ||
	die "initdb: $(tail -3 "$dir/initdb.log")"

if [ -n "$tls" ]; then
	for ca in ca other; do
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj "/CN=test $ca" \
			-keyout "$dir/$ca.key" -out "$dir/$ca.crt" 2>/dev/null
	done
	openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=localhost -keyout "$data/server.key" \
		-out "$dir/server.csr" 2>/dev/null
	openssl x509 -req -in "$dir/server.csr" -CA "$dir/ca.crt" -CAkey "$dir/ca.key" -CAcreateserial -days 2 -out "$data/server.crt" \
		-extfile <(echo "subjectAltName=DNS:localhost,IP:127.0.0.1") 2>/dev/null
	chmod 600 "$data/server.key"
	[ "$(id -u)" != 0 ] || chown postgres "$data/server.key" "$data/server.crt"
	echo "ssl = on" >>"$data/postgresql.conf"
	export PG_CA_FILE=$dir/ca.crt PG_OTHER_CA_FILE=$dir/other.crt
fi
cat >>"$data/postgresql.conf" <<-END
	listen_addresses = '127.0.0.1'
	unix_socket_directories = '$dir'
	fsync = off
	password_encryption = 'scram-sha-256'
END
[ ${#conf[@]} = 0 ] || printf '%s\n' "${conf[@]}" >>"$data/postgresql.conf"
{
	for user in "${users[@]}"; do
		case $user in
		tls*) echo "hostssl all ${user%%:*} all scram-sha-256" && echo "host all ${user%%:*} all reject" ;;
		*) echo "host all ${user%%:*} all scram-sha-256" && echo "local all ${user%%:*} scram-sha-256" ;;
		esac
	done
	echo "local all postgres trust"
	echo "host all postgres 127.0.0.1/32 trust"
} >"$data/pg_hba.conf"
# "reject" says so; a missing line says "no pg_hba.conf entry … no encryption", as servers in the cloud do
sed -i '/reject$/d' "$data/pg_hba.conf"

# Nobody can hold a free port for the server: when it was taken in between, take another.
for _ in 1 2 3 4 5; do
	port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
	"${as[@]}" "$bin/postgres" -D "$data" -p "$port" >>"$dir/log" 2>&1 &
	server=$!
	for _ in $(seq 200); do
		if "$bin/pg_isready" -q -h "$dir" -p "$port"; then
			break 2
		fi
		kill -0 "$server" 2>/dev/null || break
		sleep 0.05
	done
	kill -QUIT "$server" 2>/dev/null || true
	wait "$server" 2>/dev/null || true
	server=''
done
[ -n "$server" ] || die "the server does not start: $(tail -5 "$dir/log")"

export PGHOST=127.0.0.1 PGPORT=$port PGUSER=postgres PGDATABASE=postgres PGSSLMODE=disable PG_SOCKET_DIR=$dir PG_DATA_DIR=$data PG_PID=$server
for user in "${users[@]}"; do
	psql -qXv ON_ERROR_STOP=1 -v name="${user%%:*}" -v password="${user#*:}" \
		<<<"CREATE ROLE :\"name\" LOGIN PASSWORD :'password';"
done
"$@" &
child=$!
status=0
wait "$child" || status=$?
child=''
exit "$status"
