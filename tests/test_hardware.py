"""Devices that models cannot run on are refused before anything is loaded."""

import pytest

from stremn.errors import StremnError
from stremn.hardware import pick_device


@pytest.mark.parametrize("name", ["meta", "meta:3"])
def test_a_device_without_numbers_is_refused(name: str) -> None:
    message = f"device '{name}' cannot be used: .* needs a device that computes.*Use auto, cpu"
    with pytest.raises(StremnError, match=message):
        pick_device(name)
