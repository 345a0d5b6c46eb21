"""Noise, black, white, flicker and cuts: a short campaign (see `streams`)."""

import pytest

from streams import OBJECTS, PRECISIONS, come_and_go, save_and_load, stream
from stremn.networks.model import STReMN


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("given", OBJECTS)
def test_numbers_stay_sane(model: STReMN, precision: str, given: str) -> None:
    stream(model, precision, given, frames=30, look=15)


def test_objects_that_come_and_go_leave_nothing(model: STReMN) -> None:
    come_and_go(model, "float32", 12, look=4)


def test_saving_and_loading_changes_nothing(model: STReMN) -> None:
    save_and_load(model, "bfloat16", 6, look=2)
