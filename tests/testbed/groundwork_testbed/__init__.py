# SPDX-License-Identifier: GPL-3.0-or-later
# Copyright: groundwork.backend contributors
"""The test bed: an engine, Debian hosts with systemd, stand-in images and a registry mirror on one bridge."""
