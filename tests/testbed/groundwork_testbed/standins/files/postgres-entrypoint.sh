#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# Behaves like the entrypoint of the official postgres image, written for the test bed.
set -Eeo pipefail

fail() {
  printf 'Error: %s\n' "$@" >&2
  exit 1
}

# Read NAME from NAME_FILE when that is set; both is an error.
file_env() {
  local name=$1 default=${2:-} file_name="$1_FILE"
  if [ -n "${!name:-}" ] && [ -n "${!file_name:-}" ]; then
    fail "both $name and $file_name are set (but are exclusive)"
  fi
  local value=$default
  if [ -n "${!name:-}" ]; then
    value=${!name}
  elif [ -n "${!file_name:-}" ]; then
    value=$(<"${!file_name}")
  fi
  export "$name"="$value"
  unset "$file_name"
}

make_directories() {
  mkdir -p "$PGDATA"
  chmod 00700 "$PGDATA" || :
  mkdir -p /var/run/postgresql || :
  chmod 03775 /var/run/postgresql || :
  if [ -n "${POSTGRES_INITDB_WALDIR:-}" ]; then
    mkdir -p "$POSTGRES_INITDB_WALDIR"
    chmod 700 "$POSTGRES_INITDB_WALDIR"
  fi
  if [ "$(id -u)" = 0 ]; then
    find "$PGDATA" \! -user postgres -exec chown postgres '{}' +
    find /var/run/postgresql \! -user postgres -exec chown postgres '{}' +
    if [ -n "${POSTGRES_INITDB_WALDIR:-}" ]; then
      find "$POSTGRES_INITDB_WALDIR" \! -user postgres -exec chown postgres '{}' +
    fi
  fi
}

check_environment() {
  if [ -z "$POSTGRES_PASSWORD" ] && [ "${POSTGRES_HOST_AUTH_METHOD:-}" != trust ]; then
    cat >&2 <<'EOE'
Error: Database is uninitialized and superuser password is not specified.
       You must specify POSTGRES_PASSWORD to a non-empty value for the
       superuser. For example, "-e POSTGRES_PASSWORD=password" on "docker run".

       You may also use "POSTGRES_HOST_AUTH_METHOD=trust" to allow all
       connections without a password. This is *not* recommended.
EOE
    exit 1
  fi
  if [ "${POSTGRES_HOST_AUTH_METHOD:-}" = trust ]; then
    echo 'WARNING: POSTGRES_HOST_AUTH_METHOD has been set to "trust": anyone who reaches the port has full access.' >&2
  fi
}

init_database() {
  local wal=()
  if [ -n "${POSTGRES_INITDB_WALDIR:-}" ]; then
    wal=(--waldir "$POSTGRES_INITDB_WALDIR")
  fi
  # POSTGRES_INITDB_ARGS is words with quotes, as for a shell.
  eval 'initdb --username="$POSTGRES_USER" --pwfile=<(printf "%s\n" "$POSTGRES_PASSWORD") "${wal[@]}" '"${POSTGRES_INITDB_ARGS:-}"' "$@"'
}

# The superuser comes in over the socket, past the administrator's own psqlrc.
process_sql() {
  local arguments=(-v ON_ERROR_STOP=1 --username "$POSTGRES_USER" --no-password --no-psqlrc)
  if [ -n "${POSTGRES_DB:-}" ]; then
    arguments+=(--dbname "$POSTGRES_DB")
  fi
  PGHOST='' PGHOSTADDR='' psql "${arguments[@]}" "$@"
}
docker_process_sql() { process_sql "$@"; }

process_init_files() {
  local file
  for file; do
    case $file in
      *.sh)
        if [ -x "$file" ]; then
          printf '%s: running %s\n' "$0" "$file"
          "$file"
        else
          printf '%s: sourcing %s\n' "$0" "$file"
          # shellcheck disable=SC1090
          . "$file"
        fi
        ;;
      *.sql) printf '%s: running %s\n' "$0" "$file"; process_sql -f "$file"; printf '\n' ;;
      *.sql.gz) printf '%s: running %s\n' "$0" "$file"; gunzip -c "$file" | process_sql; printf '\n' ;;
      *.sql.xz) printf '%s: running %s\n' "$0" "$file"; xzcat "$file" | process_sql; printf '\n' ;;
      *.sql.zst) printf '%s: running %s\n' "$0" "$file"; zstd -dc "$file" | process_sql; printf '\n' ;;
      *) printf '%s: ignoring %s\n' "$0" "$file" ;;
    esac
  done
}

# Whether the arguments ask for help only.
wants_help() {
  local argument
  for argument; do
    case $argument in
      -'?' | --help | --describe-config | -V | --version) return 0 ;;
    esac
  done
  return 1
}

first_start() {
  check_environment
  init_database
  local method=${POSTGRES_HOST_AUTH_METHOD:-}
  method=${method:-$(postgres -C password_encryption "${@:2}")}
  {
    printf '\n'
    if [ "$method" = trust ]; then
      printf '# warning trust is enabled for all connections\n'
    fi
    printf 'host all all all %s\n' "$method"
  } >>"$PGDATA/pg_hba.conf"

  # Over the socket only: nobody from outside sees a half-initialised database.
  local options=("${@:2}" -c listen_addresses='' -p "${PGPORT:-5432}")
  export PGPASSWORD=${PGPASSWORD-$POSTGRES_PASSWORD}
  NOTIFY_SOCKET='' PGUSER="${PGUSER:-$POSTGRES_USER}" pg_ctl -D "$PGDATA" -o "$(printf '%q ' "${options[@]}")" -w start

  if [ -z "$(POSTGRES_DB='' process_sql --dbname postgres --set db="$POSTGRES_DB" --tuples-only <<'EOSQL'
SELECT 1 FROM pg_database WHERE datname = :'db' ;
EOSQL
  )" ]; then
    POSTGRES_DB='' process_sql --dbname postgres --set db="$POSTGRES_DB" <<'EOSQL'
CREATE DATABASE :"db" ;
EOSQL
    printf '\n'
  fi
  process_init_files /docker-entrypoint-initdb.d/*

  PGUSER="${PGUSER:-postgres}" pg_ctl -D "$PGDATA" -m fast -w stop
  unset PGPASSWORD
  printf '\nPostgreSQL init process complete; ready for start up.\n\n'
}

main() {
  case ${1:-} in
    -*) set -- postgres "$@" ;;
  esac
  if [ "${1:-}" = postgres ] && ! wants_help "$@"; then
    if [ -s "$PGDATA/PG_VERSION" ]; then
      local initialised=1
    fi
    make_directories
    if [ "$(id -u)" = 0 ]; then
      exec gosu postgres "${BASH_SOURCE[0]}" "$@"
    fi
    file_env POSTGRES_PASSWORD
    file_env POSTGRES_USER postgres
    file_env POSTGRES_DB "$POSTGRES_USER"
    file_env POSTGRES_INITDB_ARGS
    if [ -z "${initialised:-}" ]; then
      shopt -s nullglob
      first_start "$@"
    else
      printf '\nPostgreSQL Database directory appears to contain a database; Skipping initialization\n\n'
    fi
  fi
  exec "$@"
}

main "$@"
