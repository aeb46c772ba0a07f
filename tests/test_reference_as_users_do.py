"""Force constants equal those of upstream with programs compiled as users compile them.

Other tests compile theirs quickly (conftest.py), which would hide a fault of XLA's optimisations.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from test_reference import MODELS, assert_bloch_equals_upstream


@pytest.mark.slow
def test_bloch_force_constants_equal_upstream(shared: Path):
    assert_bloch_equals_upstream("GaN_wurtzite", MODELS[1], shared)
