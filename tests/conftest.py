"""For all tests: nothing is written to the user's cache folder, and nothing depends on a clock."""

from __future__ import annotations

import hypothesis
import pytest

from tests.records import make, run_folder  # noqa: F401 (fixtures)

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
