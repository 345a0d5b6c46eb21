"""Calls in any order leave a session as it must be: a short campaign (see `call_sequences`)."""

import pytest

from call_sequences import campaign


@pytest.mark.usefixtures("unchecked")  # wrong arguments among them
def test_any_sequence_of_calls() -> None:
    campaign(12, 15, same=True)
