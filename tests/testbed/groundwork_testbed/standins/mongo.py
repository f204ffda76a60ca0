# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""A stand-in for mongo:8.2. It is NOT the official image, and the server in it is NOT MongoDB.

SecantusDB, from PyPI, on Debian 13: a server of its own that speaks MongoDB's wire protocol and keeps its data with
WiredTiger. files/mongo-mongod.py takes mongod's options and answers the commands of an administrator that SecantusDB
lacks (replSetInitiate, setFeatureCompatibilityVersion); files/mongo-entrypoint.sh behaves like the official image's
entrypoint. Both are written for the test bed, as far as the role mongodb goes.

It differs from the official image: mongosh, mongodump and the other tools are not there; of mongod's options only
those in mongo-mongod.py; configuration files and scripts in /docker-entrypoint-initdb.d are not read; a replica set has
one member and is its primary at once, and whoever is logged in may make it or set the version of the data; the data
cannot be opened by MongoDB, nor MongoDB's data by it. It calls itself what MONGO_VERSION says and, as mongod does,
refuses data of a version that this one does not take. Authentication (SCRAM), roles, snapshots, indexes and the files
that it writes are SecantusDB's real ones.
"""

from __future__ import annotations

from .model import StandIn

PACKAGES = "SecantusDB==0.7.0b3 pymongo==4.20.0"

DOCKERFILE = f"""\
RUN groupadd --system --gid=999 mongodb \\
 && useradd --system --uid=999 --gid=mongodb --home-dir=/data/db mongodb \\
 && apt-get update \\
 && apt-get install -y --no-install-recommends gosu python3 python3-venv \\
 && rm -rf /var/lib/apt/lists/* \\
 && python3 -m venv /opt/secantus \\
 && /opt/secantus/bin/pip install --no-cache-dir --disable-pip-version-check {PACKAGES} \\
 && install -d -o mongodb -g mongodb /data/db /data/configdb \\
 && mkdir /docker-entrypoint-initdb.d
ENV MONGO_MAJOR=8.2 MONGO_VERSION=8.2.11 HOME=/data/db
COPY mongo-entrypoint.sh /usr/local/bin/docker-entrypoint.sh
COPY mongo-mongod.py /usr/local/lib/mongod.py
RUN printf '#!/bin/sh\\nexec /opt/secantus/bin/python /usr/local/lib/mongod.py "$@"\\n' >/usr/local/bin/mongod \\
 && chmod 0755 /usr/local/bin/mongod && mongod --version
VOLUME /data/db /data/configdb
ENTRYPOINT ["docker-entrypoint.sh"]
EXPOSE 27017
CMD ["mongod"]
"""

MONGO_82 = StandIn("mongo:8.2", "debian13", DOCKERFILE, files=("mongo-entrypoint.sh", "mongo-mongod.py"))
