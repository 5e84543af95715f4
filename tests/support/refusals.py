"""A mistake that a function must refuse: one line, with what was wrong."""

import pytest

from rvq_jax.errors import UserError


def refused(call, *words: str) -> None:
    """The call raises UserError of one line that has all the words."""
    with pytest.raises(UserError) as caught:
        call()
    message = str(caught.value)
    assert "\n" not in message
    assert not [word for word in words if word not in message], message
