# SPDX-License-Identifier: GPL-3.0-or-later
"""Collects ideas, with the country that each is from."""

__version__ = "1.0.0"
