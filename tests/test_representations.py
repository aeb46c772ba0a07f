"""Irreps by name and their couplings are e3nn's."""

import itertools

import e3nn_jax as e3nn
import numpy as np
import pytest

from phonopy_equivariant.models.representations import (
    coupling_with_vector,
    format_irreps,
    parse_irrep,
    parse_irreps,
    products,
)

NAMES = [f"{degree}{parity}" for degree in range(4) for parity in "eo"]


@pytest.mark.parametrize("seed", range(8))
def test_lists_are_read_sorted_and_merged_as_by_e3nn(seed):
    rng = np.random.default_rng(seed)
    terms = [f"{rng.integers(0, 70)}x{rng.choice(NAMES)}" for _ in range(rng.integers(1, 9))]
    terms += [str(rng.choice([*NAMES, "2y", "3y"]))]
    text = " + ".join(terms)
    expected = e3nn.Irreps(text).regroup()
    assert format_irreps(parse_irreps(text)) == str(expected)
    assert parse_irreps(text) == {str(irrep): channels for channels, irrep in expected}


@pytest.mark.parametrize("text", ["64x0", "x0e", "64x0e 32x1o", "-1x0e", "1.5x0e", "0f", "e", "+"])
def test_what_is_no_list_is_refused(text):
    with pytest.raises(ValueError, match="no "):
        parse_irreps(text)


def test_products_are_those_of_e3nn():
    for left, right in itertools.product(NAMES, NAMES):
        expected = [str(irrep) for irrep in e3nn.Irrep(left) * e3nn.Irrep(right)]
        assert [str(x) for x in products(parse_irrep(left), parse_irrep(right))] == expected


@pytest.mark.parametrize("degree", range(1, 9))
def test_couplings_with_a_vector_are_those_of_e3nn(degree):
    expected = e3nn.clebsch_gordan(1, degree - 1, degree)
    expected = expected * np.sqrt((2 * degree + 1) / np.sum(expected**2))
    np.testing.assert_allclose(coupling_with_vector(degree), expected, atol=1e-14)
