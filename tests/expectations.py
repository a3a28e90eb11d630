"""What several test files expect of bad input."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from metricanything.core.errors import InputError


def assert_refused(read: Callable[[], object], *words: str) -> None:
    """The call raises InputError with one line that holds the words."""
    with pytest.raises(InputError) as error:
        read()
    assert "\n" not in str(error.value)
    for word in words:
        assert word in str(error.value)
