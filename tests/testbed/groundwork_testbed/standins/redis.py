# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A stand-in for redis:7-alpine. It is NOT the official image.

Debian 12's redis-server (7.0) with an entrypoint written for the test bed that behaves like the official one.

It differs from the official image: Debian instead of Alpine (bash, apt and GNU tools instead of busybox and apk),
7.0 instead of the newest 7, and no modules. As in the official image, protected mode is off unless configured.
"""

from __future__ import annotations

from .model import StandIn

DOCKERFILE = """\
RUN groupadd -r --gid=1000 redis \\
 && useradd -r -g redis --uid=999 --home-dir=/data --shell=/usr/sbin/nologin redis \\
 && apt-get update \\
 && apt-get install -y --no-install-recommends redis-server \\
 && rm -rf /var/lib/apt/lists/* /etc/redis /var/lib/redis \\
 && ln -sf /usr/bin/redis-server /usr/bin/redis-cli /usr/bin/redis-benchmark /usr/local/bin/ \\
 && install -d -o redis -g redis -m 0755 /data \\
 && redis-server --version && redis-cli --version
ENV REDIS_VERSION=7.0
COPY redis-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
VOLUME /data
WORKDIR /data
ENTRYPOINT ["docker-entrypoint.sh"]
EXPOSE 6379
CMD ["redis-server"]
"""

REDIS_7 = StandIn("redis:7-alpine", "debian12", DOCKERFILE, files=("redis-entrypoint.sh",))
