#!/bin/sh
# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
# Behaves like the entrypoint of the official image: options alone mean redis-server, root becomes redis, the data
# folder gets the right owner, protected mode is off unless the command line says otherwise.
set -e

case ${1:-} in
  -* | *.conf) set -- redis-server "$@" ;;
esac

if [ "${1:-}" = redis-server ] && [ "$(id -u)" = 0 ]; then
  find . \! -user redis -exec chown redis '{}' +
  exec setpriv --reuid=redis --regid=redis --clear-groups "$0" "$@"
fi

if [ "$(umask)" = 0022 ]; then
  umask 0077
fi

if [ "${1:-}" = redis-server ]; then
  shift
  # The official server is compiled with protected mode off; a file or an option that comes later wins.
  case ${1:-} in
    '' | -*) set -- redis-server --protected-mode no "$@" ;;
    *)
      file=$1
      shift
      if grep -qiE '^[[:space:]]*protected-mode[[:space:]]' "$file" 2>/dev/null; then
        set -- redis-server "$file" "$@"
      else
        set -- redis-server "$file" --protected-mode no "$@"
      fi
      ;;
  esac
fi

exec "$@"
