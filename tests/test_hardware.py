"""Devices that models cannot run on are refused before anything is loaded."""

import pytest

from stremn.errors import StremnError
from stremn.hardware import pick_device


@pytest.mark.parametrize("name", ["abacus", "hpu", "cuda:99", "vulkan", ""])
def test_a_device_that_is_not_there_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(
        StremnError, match=rf"device '{name}' cannot be used \(.+\)\. Use auto"
    ) as e:
        pick_device(name)
    assert e.value.__cause__ is not None


@pytest.mark.parametrize("name", ["meta", "meta:3"])
def test_a_device_without_numbers_is_refused(name: str) -> None:
    message = f"device '{name}' cannot be used: .* needs a device that computes.*Use auto, cpu"
    with pytest.raises(StremnError, match=message):
        pick_device(name)
