"""RQ-Transformers of published shape, in shapes alone."""

import pytest

from rvq_jax import files
from rvq_jax.lm import forms
from rvq_jax.systems import rq_transformer

# Millions of parameters of the published ones without their codecs; what ours has not or has beside
# is in the docstrings: text, the other speaker, embeddings of the depth transformer's own.
PUBLISHED = {
    "csm_1b": {"all": 1552.8, "over frames": 973.1, "over levels": 111.2, "other": -262.7 + 130.1},
    "moshi_7b": {
        "all": 7687.7,
        "over frames": 6576.9,
        "over levels": 616.6,
        "other": -294.9 - 67.1,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_they_have_the_published_numbers_of_parameters(name):
    """Layers exactly, all together within a tenth, and what is between them is accounted for."""
    published = PUBLISHED[name]
    shapes = files.named(forms.abstract(getattr(rq_transformer, name)()))

    def count(prefix: str) -> float:
        return sum(x.size for n, x in shapes.items() if n.startswith(prefix)) / 1e6

    assert round(count("blocks/"), 1) == published["over frames"]
    assert round(count("heads/blocks/"), 1) == published["over levels"]
    ours = count("") - count("readers/")
    assert ours == pytest.approx(published["all"], rel=0.1)
    assert ours == pytest.approx(published["all"] + published["other"], rel=1e-3)
