# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A stand-in for pgvector/pgvector:pg17. It is NOT the official image.

Debian 13's PostgreSQL 17 with its pgvector 0.8.0, which is a version with known faults, and an entrypoint written for
the test bed that behaves like the official one (files/postgres-entrypoint.sh). The server speaks TLS when it is given a
certificate.
"""

from __future__ import annotations

from .model import StandIn

DOCKERFILE = """\
RUN groupadd -r postgres --gid=999 \\
 && useradd -r -g postgres --uid=999 --home-dir=/var/lib/postgresql --shell=/bin/bash postgres \\
 && apt-get update \\
 && apt-get install -y --no-install-recommends gosu locales postgresql-common xz-utils zstd \\
 && sed -i 's/^#*create_main_cluster.*/create_main_cluster = false/' /etc/postgresql-common/createcluster.conf \\
 && apt-get install -y --no-install-recommends postgresql-17 postgresql-17-pgvector \\
 && rm -rf /var/lib/apt/lists/* \\
 && localedef -i en_US -c -f UTF-8 en_US.UTF-8
ENV LANG=en_US.utf8 PG_MAJOR=17 PG_VERSION=17-testbed
COPY postgres-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
RUN set -eu; \\
    sed -i -e "s/^#*listen_addresses =.*/listen_addresses = '*'/" /usr/share/postgresql/17/postgresql.conf.sample; \\
    install -d -o postgres -g postgres -m 1777 /var/lib/postgresql; \\
    install -d -o postgres -g postgres -m 3777 /var/run/postgresql; \\
    install -d -o postgres -g postgres -m 1777 /var/lib/postgresql/data; \\
    mkdir /docker-entrypoint-initdb.d; \\
    ln -s usr/local/bin/docker-entrypoint.sh /docker-entrypoint.sh; \\
    /usr/lib/postgresql/17/bin/postgres --version
ENV PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:/usr/lib/postgresql/17/bin
ENV PGDATA=/var/lib/postgresql/data
VOLUME /var/lib/postgresql/data
ENTRYPOINT ["docker-entrypoint.sh"]
STOPSIGNAL SIGINT
EXPOSE 5432
CMD ["postgres"]
"""

PG17 = StandIn("pgvector/pgvector:pg17", "debian13", DOCKERFILE, files=("postgres-entrypoint.sh",))
