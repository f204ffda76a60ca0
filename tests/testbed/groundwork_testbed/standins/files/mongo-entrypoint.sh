#!/usr/bin/env bash
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# Behaves like the entrypoint of the official mongo image, as far as the role mongodb goes; written for the test bed.
set -Eeuo pipefail

fail() {
  printf 'error: %s\n' "$1" >&2
  exit 1
}

# Read NAME from NAME_FILE when that is set; both is an error.
file_env() {
  local name=$1 file_name="$1_FILE"
  if [ -n "${!name:-}" ] && [ -n "${!file_name:-}" ]; then
    fail "both $name and $file_name are set (but are exclusive)"
  fi
  local value=${!name:-}
  if [ -n "${!file_name:-}" ]; then
    value=$(<"${!file_name}")
  fi
  export "$name"="$value"
  unset "$file_name"
}

# Whether one of the arguments after the first is this option.
has_option() {
  local wanted=$1 argument
  shift
  for argument; do
    case $argument in
      "$wanted" | "$wanted"=*) return 0 ;;
    esac
  done
  return 1
}

# A server that only this container reaches, and that asks nobody who it is, for as long as it takes to make the user.
first_start() {
  mongod --bind_ip 127.0.0.1 --port 27017 &
  local server=$!
  /opt/secantus/bin/python - <<'EOP'
import os, pymongo
client = pymongo.MongoClient("127.0.0.1", 27017, serverSelectionTimeoutMS=30000)
user, password = (os.environ[f"MONGO_INITDB_ROOT_{name}"] for name in ("USERNAME", "PASSWORD"))
client.admin.command("createUser", user, pwd=password, roles=[{"role": "root", "db": "admin"}])
EOP
  kill -TERM "$server"
  wait "$server"
  printf '\nMongoDB init process complete; ready for start up.\n\n'
}

case ${1:-} in
  '' | -*) set -- mongod "$@" ;;
esac

if [[ $1 == mongo* ]] && [ "$(id -u)" = 0 ]; then
  if [ "$1" = mongod ]; then
    find /data/configdb /data/db \! -user mongodb -exec chown mongodb '{}' +
  fi
  exec gosu mongodb "${BASH_SOURCE[0]}" "$@"
fi

if [ "$1" = mongod ]; then
  file_env MONGO_INITDB_ROOT_USERNAME
  file_env MONGO_INITDB_ROOT_PASSWORD
  if [ -n "$MONGO_INITDB_ROOT_USERNAME" ] && [ -n "$MONGO_INITDB_ROOT_PASSWORD" ]; then
    has_option --auth "$@" || set -- "$@" --auth
    if [ ! -e /data/db/WiredTiger ]; then
      first_start
    fi
  elif [ -n "$MONGO_INITDB_ROOT_USERNAME$MONGO_INITDB_ROOT_PASSWORD" ]; then
    fail "missing 'MONGO_INITDB_ROOT_USERNAME' or 'MONGO_INITDB_ROOT_PASSWORD': both must be specified for a user to be created"
  fi
  has_option --bind_ip "$@" || has_option --bind_ip_all "$@" || set -- "$@" --bind_ip_all
  unset "${!MONGO_INITDB_@}"
fi

exec "$@"
