# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""Who listens on a port."""

from __future__ import annotations

import os
import socket

import pytest

from ansible_collections.groundwork.backend.plugins.module_utils._probe_owner import _inodes, owners

_HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
_ROW = "   0: {} 00000000:0000 {} 00000000:00000000 00:00000000 00000000     0        0 {} 1 0 100 0 0 10 0\n"


def test_the_most_exact_address_counts() -> None:
    """As the kernel does: the address itself, else all addresses; only what listens, and only on the port.

    The rows are those of a little-endian machine.
    """
    four = _HEAD + _ROW.format("0100007F:1F40", "0A", 11) + _ROW.format("00000000:1F40", "0A", 12)
    four += _ROW.format("0100007F:1F40", "01", 13) + _ROW.format("0100007F:1F41", "0A", 14)
    six = _HEAD + _ROW.format(f"{'0' * 32}:1F42", "0A", 21)
    six += _ROW.format("0000000000000000FFFF00000100007F:1F43", "0A", 22)
    six += _ROW.format("00000000000000000000000001000000:1F40", "0A", 23)
    tables = {4: four, 6: six}
    asked = [("127.0.0.1", 8000), ("127.0.0.2", 8000), ("127.0.0.1", 8001), ("127.0.0.1", 8002), ("127.0.0.1", 8003)]
    assert [_inodes(tables, *one) for one in asked] == [{"11"}, {"12"}, {"14"}, {"21"}, {"22"}]
    assert _inodes(tables, "::1", 8000) == {"23"}


@pytest.mark.parametrize("address", ["127.0.0.1", "::1"])
def test_this_process_listens(address: str) -> None:
    """Found while it listens, and not afterwards."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with socket.create_server((address, 0), family=family) as listener:
        port = listener.getsockname()[1]
        found = {one["pid"]: one for one in owners(address, port)}
        assert found[str(os.getpid())]["cwd"] == os.getcwd()  # noqa: PTH109 - what the kernel tells
    assert owners(address, port) == []
