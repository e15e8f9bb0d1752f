"""Arguments of compiled code."""

from __future__ import annotations

import importlib
import sys

import numpy as np
import pytest

from persona.codec.native import convention

BYTES = bytes(range(64))
ARRAYS = {
    "owned": np.arange(7, dtype=np.uint32),
    "a part": np.arange(64, dtype=np.uint16)[9:31],
    "a row": np.zeros((5, 8), np.float32)[3],
    "read-only": np.frombuffer(BYTES, np.uint8, offset=3),
    "of a memoryview": np.frombuffer(memoryview(bytearray(BYTES))[5:], np.uint8),
    "two axes": np.ones((3, 4), np.int64)[1:],
    "empty": np.empty(0, np.uint8),
    "another type": np.arange(8, dtype=np.uint32)[2:].view(np.uint8),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_the_address_of_an_array_is_that_of_its_first_element(name: str) -> None:
    assert convention.data_pointer(ARRAYS[name]) == ARRAYS[name].ctypes.data


def test_numpy_is_asked_if_its_structure_is_unknown(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        with monkeypatch.context() as patch:
            patch.setattr(sys.implementation, "name", "another")
            slow = importlib.reload(convention).data_pointer
        assert slow.__name__ == "_by_numpy"
        assert [slow(array) for array in ARRAYS.values()] == [a.ctypes.data for a in ARRAYS.values()]
    finally:
        assert importlib.reload(convention).data_pointer.__name__ == "_by_structure"
