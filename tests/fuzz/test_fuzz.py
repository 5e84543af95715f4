"""Every reader takes damaged files as values or refuses them in one line, within bounds."""

import harness
import pytest
from tiers import slow

TARGETS = harness.targets()


@pytest.mark.parametrize("count", [30, slow(200)])
@pytest.mark.parametrize("name", TARGETS)
def test_a_mutant_is_a_value_or_one_line(name, count, tmp_path):
    target = TARGETS[name]
    samples = target.samples(tmp_path)
    path = tmp_path / "mutant" / target.name
    path.parent.mkdir()
    for data in samples:
        path.write_bytes(data)
        assert harness.verdict(target, path) == "value"
    for index, data in enumerate(harness.mutants(target, samples, count)):
        path.write_bytes(data)
        found = harness.verdict(target, path)
        assert found in ("value", "error"), f"mutant {index} of {name}: {found}"
