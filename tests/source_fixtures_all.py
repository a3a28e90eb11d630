"""The fixtures of all readers in one table; it is complete (tests/test_sources.py)."""

from __future__ import annotations

from source_fixtures import FIXTURES as FIRST
from source_fixtures_lidar import LIDAR
from source_fixtures_more import MORE
from source_fixtures_rgbd import RGBD
from source_fixtures_sfm import SFM

FIXTURES = {**FIRST, **LIDAR, **RGBD, **MORE, **SFM}
