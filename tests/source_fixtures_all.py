"""The fixtures of all readers in one table; it is complete (tests/test_sources.py)."""

from __future__ import annotations

from source_fixtures import FIXTURES as FIRST
from source_fixtures_lidar import LIDAR
from source_fixtures_more import MORE
from source_fixtures_rgbd import RGBD

FIXTURES = {**FIRST, **LIDAR, **RGBD, **MORE}
