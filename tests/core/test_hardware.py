"""Devices that models cannot run on are refused; number types suit the hardware."""

import pytest
import torch

from stremn.core import hardware
from stremn.core.hardware import (
    is_out_of_memory,
    pick_device,
    pick_precision,
    precision_name,
)
from stremn.errors import StremnError

CPU = torch.device("cpu")


@pytest.mark.parametrize("name", ["abacus", "hpu", "cuda:99", "vulkan", ""])
def test_a_device_that_is_not_there_is_refused_with_the_reason(name: str) -> None:
    with pytest.raises(
        StremnError, match=rf"device '{name}' cannot be used \(.+\)\. Use auto"
    ) as e:
        pick_device(name)
    assert e.value.__cause__ is not None


@pytest.mark.parametrize("name", ["meta", "meta:3"])
def test_a_device_without_numbers_is_refused(name: str) -> None:
    message = f"device '{name}' cannot be used: it has shapes but no numbers.*Use auto, cpu"
    with pytest.raises(StremnError, match=message):
        pick_device(name)


@pytest.mark.parametrize(
    ("error", "starved"),
    [
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to"), True),  # Windows
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), True),
        (RuntimeError("std::bad_alloc"), True),
        (MemoryError(), True),
        (RuntimeError("The size of tensor a (3) must match the size of tensor b (4)"), False),
    ],
)
def test_an_allocation_that_fails_is_recognized(error: Exception, starved: bool) -> None:
    assert is_out_of_memory(error) == starved


@pytest.mark.parametrize(("fast", "chosen"), [(True, "bfloat16"), (False, "float32")])
def test_auto_is_bfloat16_where_the_processor_multiplies_it(
    fast: bool, chosen: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: fast)
    assert precision_name("auto", CPU) == chosen
    assert pick_precision("auto", CPU) == hardware.PRECISIONS[chosen]
    assert precision_name("bfloat16", CPU) == "bfloat16"


def test_bfloat16_on_a_processor_without_it_is_slow_and_says_so_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(hardware, "has_fast_bfloat16", lambda device: False)
    hardware._warn_of_slow_bfloat16.cache_clear()
    for name in ("auto", "float32"):
        pick_precision(name, CPU)
    assert not caplog.records
    for _ in range(2):
        assert pick_precision("bfloat16", CPU) == torch.bfloat16
    assert [r.levelname for r in caplog.records] == ["WARNING"]
    assert "Use float32, or auto" in caplog.text
    hardware._warn_of_slow_bfloat16.cache_clear()
