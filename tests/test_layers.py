"""Laws of the parts of a model: features, convolution, radial functions, activations."""

from __future__ import annotations

import functools

import e3nn_jax as e3nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from conftest import BOTH_PARITIES, IMPROPER, NATURAL, assert_close, small_config, turned_irreps

from phonopy_equivariant.models import activation
from phonopy_equivariant.models.convolution import Edges, convolve
from phonopy_equivariant.models.irreps import LayerLayout, dimension, harmonics, layer_layouts
from phonopy_equivariant.models.layered import interaction
from phonopy_equivariant.models.radial import bessel_basis, polynomial_envelope
from phonopy_equivariant.potential import edge_vectors, random_potential


def test_features_transform_as_their_irreps(crystal):
    """Odd scalars and even vectors reach the energy only after six layers: look inside."""
    potential = random_potential(
        small_config(**BOTH_PARITIES, num_interactions=4, layer_norm=True), seed=11
    )
    mirrored = crystal._replace(
        positions=crystal.positions @ IMPROPER.T, cell=crystal.cell @ IMPROPER.T
    )
    features, transformed = (_hidden_features(potential, s) for s in (crystal, mirrored))
    assert set(features) == {"0e", "0o", "1o", "1e", "2e", "2o"}
    matrices = turned_irreps(*features)
    for key, values in features.items():
        assert_close(transformed[key], np.einsum("ab,nbu->nau", matrices[key], values))


def _hidden_features(potential, structure):
    """Return the features before the last layer."""

    @jax.jit
    def run(graph):
        vectors = edge_vectors(graph, graph.nodes["positions"], graph.globals["cell"])
        distance = jnp.linalg.norm(vectors, axis=1)
        shared = potential.params["global"]
        z_i, z_j = graph.nodes["species"][graph.receivers], graph.nodes["species"][graph.senders]
        basis = potential.model.basis(shared, distance, z_i, z_j)[::2]
        sphericals = harmonics(vectors / distance[:, None], potential.model.l_max)
        edges = Edges(basis, sphericals, graph.senders, graph.receivers)
        species = graph.nodes["species"]
        features = potential.model.embed(shared, species)
        layers = zip(potential.model.layers, potential.params["layers"], strict=True)
        for layer, params in list(layers)[:-1]:
            features = interaction(layer, params, features, edges, species)
        return features

    with jax.enable_x64(True):
        features = run(potential.graph(structure))
        return {key: np.asarray(value) for key, value in features.items()}


@pytest.mark.parametrize("exponent", [2.0, 6.0, 4.5])
def test_envelope_and_two_derivatives_vanish_at_the_cutoff(exponent):
    cutoff, gap = 3.0, 1e-4
    with jax.enable_x64(True):

        def envelope(r):
            return polynomial_envelope(r[None], cutoff, exponent)[0]

        # one minus the envelope starts as r^p: it is 1 at the origin
        assert envelope(jnp.asarray(1e-9)) == pytest.approx(1.0, abs=1e-15)
        inside, outside = jnp.asarray(cutoff * (1 - gap)), jnp.asarray(cutoff * (1 + gap))
        # the third derivative at x = 1 is -p(p+1)(p+2), so C² means these orders in the gap
        third = exponent * (exponent + 1) * (exponent + 2)
        function = envelope
        for order in range(3):
            bound = 2 * third * gap ** (3 - order) / cutoff**order
            # rounding: the polynomial's coefficients times the precision
            assert abs(function(inside)) < bound + 1e-13 * third
            assert function(outside) == 0.0
            function = jax.grad(function)


def test_basis_solves_the_radial_equation_with_zeros_at_the_cutoff():
    """r · basis_k ∝ sin(kπr/c): the spherical Bessel functions j_0 with nodes at the cutoff."""
    cutoff = 2.5
    with jax.enable_x64(True):
        r = jnp.linspace(0.3, cutoff, 7)
        basis = np.asarray(bessel_basis(r, 4, cutoff))
    order = np.arange(1, 5)
    expected = 2 / cutoff * np.sin(order * np.pi * np.asarray(r)[:, None] / cutoff)
    np.testing.assert_allclose(basis * np.asarray(r)[:, None], expected, atol=1e-14)
    assert np.abs(basis[-1]).max() < 1e-14


def test_convolution_is_the_sum_of_e3nn_tensor_products():
    rng = np.random.default_rng(0)
    inputs = {"0e": 3, "0o": 1, "1o": 2, "2e": 2}
    outputs = {"0e": 1, "0o": 1, "1o": 1, "1e": 1, "2e": 1}
    groups = _groups_of(inputs, outputs, l_max=2)
    layout = LayerLayout(inputs, outputs, groups, 2, 0.37)
    atoms, edges = 4, 24
    senders, receivers = rng.integers(0, atoms, (2, edges))
    directions = rng.normal(size=(edges, 3))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    weights = rng.normal(size=(edges, layout.num_radial()))
    with jax.enable_x64(True):
        messages = {
            key: jnp.asarray(rng.normal(size=(atoms, dimension(key), width)))
            for key, width in inputs.items()
        }
        sphericals = harmonics(jnp.asarray(directions), 2)
        # the "radial network" here hands out one row of given weights for each edge
        edge_arrays = Edges(weights, sphericals, senders, receivers)
        result = jax.jit(lambda *arrays: convolve(layout, lambda basis, z_i, z_j: basis, *arrays))(
            messages, jax.tree.map(jnp.asarray, edge_arrays), jnp.zeros(atoms, jnp.int32)
        )
        start = 0
        for key, width in inputs.items():
            functions = weights[:, start : start + width * layout.num_paths(key)]
            functions = functions.reshape(edges, -1, width)
            start += width * layout.num_paths(key)
            path = component = 0
            for group in groups[key]:
                size = dimension(group.output)
                mine = np.asarray(result[key])[:, component : component + group.components]
                mine = mine.reshape(atoms, size, len(group.degrees), width)
                component += group.components
                for number, degree in enumerate(group.degrees):
                    product = _tensor_product(
                        key, messages[key][senders], directions, degree, group.output
                    )
                    terms = layout.scale * functions[:, path, None] * np.asarray(product)
                    expected = np.zeros((atoms, size, width))
                    np.add.at(expected, receivers, terms)
                    # e3nn keeps Clebsch-Gordan coefficients in float64: rounding only
                    assert_close(mine[:, :, number], expected, 1e-13)
                    path += 1


def _groups_of(inputs, outputs, l_max):
    """Return all paths between the irreps, in the package's order."""
    irreps = " + ".join(f"{width}x{key}" for key, width in (inputs | outputs).items())
    layouts = layer_layouts(1, irreps, l_max, 6)
    wanted = [key for key in layouts[-2].outputs if key in outputs]
    return {
        key: tuple(group for group in layouts[-2].groups[key] if group.output in wanted)
        for key in inputs
    }


@functools.partial(jax.jit, static_argnums=(0, 3, 4))
def _tensor_product(key, sent, directions, degree, output):
    """Return e3nn's product with the harmonics of one degree, (edges, 2l+1, u)."""
    width = sent.shape[-1]
    flat = jnp.swapaxes(sent, 1, 2).reshape(len(sent), -1)
    product = e3nn.tensor_product(
        e3nn.IrrepsArray(f"{width}x{key}", flat),
        e3nn.spherical_harmonics(degree, e3nn.IrrepsArray("1o", jnp.asarray(directions)), True),
        filter_ir_out=[output],
    )
    assert product.irreps == e3nn.Irreps(f"{width}x{output}")
    return jnp.swapaxes(product.array.reshape(len(sent), width, -1), 1, 2)


def test_activations_have_unit_second_moment():
    nodes, weights = np.polynomial.hermite_e.hermegauss(120)
    weights /= weights.sum()
    for name, function in (("silu", activation.silu), ("tanh", activation.tanh)):
        with jax.enable_x64(True):
            values = np.asarray(function(jnp.asarray(nodes)))
        # the quadrature published weights were trained with omits tails of probability 1e-6,
        # where SiLU² is about 25
        assert np.sum(weights * values**2) == pytest.approx(1.0, abs=5e-5), name


def test_natural_parity_leaves_out_what_no_path_reaches():
    layouts = layer_layouts(2, NATURAL["hidden_irreps"] + " + 3x0o + 2x1e", 2, 2)
    assert set(layouts[0].outputs) == {"0e", "1o", "2e"}
    assert set(layouts[-1].outputs) == {"0e"}
