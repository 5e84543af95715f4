"""What a test does in the fast tier, and what in the slow one: see conftest.py."""

import hypothesis
import pytest

FAST, THOROUGH = 4, 15  # examples of hypothesis, where a test does not say how many


def slow(*values):
    """Values of a parametrized test that only the slow tier tries."""
    return pytest.param(*values, marks=pytest.mark.slow)


def wide(*values):
    """Values by hand, `-m wide`: the slow tier tries others of the table, or a twin."""
    return pytest.param(*values, marks=pytest.mark.wide)


def tried(fast, every, share: int = 1) -> list:
    """Of `every` value those in `fast` for the fast tier, the others for the slow one.

    share: of the others every so many for the slow tier, the rest for `-m wide`.
    """
    fast, every = list(fast), list(every)
    others = [x for x in every if x not in fast]
    mark = {i: slow if i % share == 0 else wide for i in range(len(others))}

    def marked(x):
        values = x if isinstance(x, tuple) else (x,)
        return mark[others.index(x)](*values)

    return [x if x in fast else marked(x) for x in every]


def examples(count: int, fast: int | None = None):
    """`hypothesis.settings` of so many examples; in the fast profile of `fast`, or their share."""
    share = hypothesis.settings.default.max_examples / THOROUGH
    if fast is not None and share < 1:
        return hypothesis.settings(max_examples=fast)
    return hypothesis.settings(max_examples=max(1, round(count * share)))
