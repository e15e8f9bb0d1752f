"""What every test stands on: a home of its own, and hypothesis profiles."""

from __future__ import annotations

import os
import signal
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.llamas", "tests.families"]
pytest.register_assert_rewrite("tests.cli", "tests.disks", "tests.history", "tests.merge")

settings.register_profile(
    "default", max_examples=30, deadline=None, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.register_profile("thorough", parent=settings.get_profile("default"), max_examples=1000)
settings.register_profile("exhaustive", parent=settings.get_profile("default"), max_examples=10_000)
settings.load_profile("default")

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell starts what runs in the background
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True, scope="session")
def _a_home_of_its_own() -> Iterator[None]:
    """No test reads or writes the configuration of whoever runs it, nor looks at the network."""
    with tempfile.TemporaryDirectory() as home, pytest.MonkeyPatch.context() as patch:
        own = ("PERSONA_", "GIT_", "EDITOR", "VISUAL")
        for name in [name for name in os.environ if name.startswith(own)]:
            patch.delenv(name)
        patch.setenv("HOME", home)
        patch.setenv("XDG_CONFIG_HOME", os.path.join(home, ".config"))
        patch.setenv("GIT_CONFIG_NOSYSTEM", "1")
        patch.setenv("HF_HUB_OFFLINE", "1")
        patch.setenv("PERSONA_AUTHOR_NAME", "A. Tester")
        patch.setenv("PERSONA_AUTHOR_EMAIL", "tester@example.org")
        yield
