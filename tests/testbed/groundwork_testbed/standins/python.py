# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Stand-ins for python:3.11-slim and python:3.13-slim. They are NOT the official images.

Debian's Python with a virtual environment laid over /usr/local, so that interpreter, pip, scripts and site-packages
are where the official images have them, and pip installs and upgrades itself without a word about a managed system.

They differ from the official images: the interpreter is Debian's (its patch release; also at /usr/bin/python3, which
the official images do not have), ``sys.base_prefix`` is /usr, and there are no headers or python3-config for
building extensions (as little as the official slim image has a compiler). pip has the certificates and the index of
the machine that built the image.
"""

from __future__ import annotations

from .model import StandIn

DOCKERFILE = """\
RUN apt-get update \\
 && apt-get install -y --no-install-recommends python3 python3-venv \\
 && rm -rf /var/lib/apt/lists/*
ENV PATH=/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin LANG=C.UTF-8
RUN set -eu; \\
    /usr/bin/python3 -m venv --system-site-packages /usr/local; \\
    rm -f /usr/local/bin/activate* /usr/local/bin/Activate*; \\
    pip install --no-cache-dir --disable-pip-version-check --no-compile --upgrade @PACKAGES@; \\
    hash -r; ln -sf python3 /usr/local/bin/python; \\
    python -c 'import sys; assert sys.prefix == "/usr/local" and sys.version.startswith("@SERIES@."), sys.version'; \\
    find /usr/local -name __pycache__ -prune -exec rm -rf {} +
ENV PYTHON_VERSION=@SERIES@
CMD ["python3"]
"""


def dockerfile(series: str, packages: str) -> str:
    """Return the lines after FROM. series is like "3.11"."""
    return DOCKERFILE.replace("@SERIES@", series).replace("@PACKAGES@", packages)


PYTHON_311 = StandIn("python:3.11-slim", "debian12", dockerfile("3.11", "pip==24.0 setuptools==65.5.1 wheel==0.45.1"))
PYTHON_313 = StandIn("python:3.13-slim", "debian13", dockerfile("3.13", "pip==25.2"))
