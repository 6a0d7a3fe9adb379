"""For all tests: nothing is written to the user's cache folder, and nothing depends on a clock."""

from __future__ import annotations

import os

import hypothesis
import pytest

# Ray gives its first process 30 seconds to start; a busy machine may take longer.
os.environ.setdefault("RAY_raylet_start_wait_time_s", "600")

# A busy machine is slow in any single example, and slow at making examples.
hypothesis.settings.register_profile(
    "srbench", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("srbench")


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Tiny twins are made here."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SRBENCH_CACHE", str(folder))
        yield folder
