"""Imaginary modes: of the crystal or of its supercell, how many, and where, against springs."""

from __future__ import annotations

import numpy as np
import pytest
from ase.build import bulk
from conftest import small_config
from phonopy import Phonopy
from phonopy.harmonic.dynmat_to_fc import get_commensurate_points
from phonopy.structure.atoms import PhonopyAtoms

import phonopy_equivariant as pe
from phonopy_equivariant.phonons import folding
from phonopy_equivariant.phonons.exact import use_exact_dynamical_matrix
from phonopy_equivariant.phonons.folding import are_commensurate, between
from phonopy_equivariant.phonons.stability import stability
from phonopy_equivariant.potential import Potential, random_potential
from phonopy_equivariant.structure import as_structure, to_phonopy

A = 3.0  # Å

# Springs (eV/Å²) to the 1st, 2nd, ... atom along each axis of a simple cubic crystal. In 4×4×4
# cells those to the 4th do nothing.
STABLE = (1.0, 0.2)
DIP = (1.0, -0.3, 0.0, 0.1)  # stable, but without the last springs ω² is negative next to Γ
SOFT_NEAR_GAMMA = (1.0, -0.3)  # unstable next to Γ, between the q of 4×4×4
SOFT = (1.0, -0.6)  # unstable at (1/4 0 0) too


def squares(springs: tuple[float, ...], qpoints: np.ndarray) -> np.ndarray:
    """Return Φ(q) of all three directions, sum_R 2k_R (1 - cos 2πq·R), eV/Å²."""
    steps = np.arange(1, len(springs) + 1)
    terms = 1 - np.cos(2 * np.pi * np.asarray(qpoints)[..., None] * steps)
    return 2 * (terms @ np.array(springs)).sum(axis=-1)


def crystal(springs: tuple[float, ...], size: int = 4) -> Phonopy:
    """Return a crystal of springs with force constants folded into its supercell."""
    cell = PhonopyAtoms(symbols=["Al"], cell=A * np.eye(3), scaled_positions=[[0, 0, 0]])
    # phonopy takes half a minute for the symmetry of 9×9×9 cells
    small = {"is_symmetry": size < 7}
    phonon = Phonopy(cell, size * np.eye(3, dtype=int), primitive_matrix="P", **small)
    index = np.rint(phonon.supercell.positions / A).astype(int)
    force_constants = np.zeros((1, len(index), 3, 3))
    for steps, spring in enumerate(springs, 1):
        for image in steps * np.vstack([np.eye(3, dtype=int), -np.eye(3, dtype=int)]):
            force_constants[0, ((index - image) % size == 0).all(axis=1)] -= spring * np.eye(3)
            force_constants[0, 0] += spring * np.eye(3)
    phonon.force_constants = force_constants
    return phonon


@pytest.fixture
def direct(monkeypatch: pytest.MonkeyPatch):  # type: ignore[no-untyped-def]
    """Return a function that gives a potential of springs, whose range is said to be 12 Å."""
    potential = Potential(small_config(), {})

    def of_springs(springs: tuple[float, ...]) -> Potential:
        def values(_potential, _cell, qpoints, *_):  # type: ignore[no-untyped-def]
            return squares(springs, qpoints)[:, None, None] * np.eye(3, dtype=complex)

        monkeypatch.setattr(folding, "lattice_force_constants", values)
        return potential

    return of_springs


def test_springs_are_what_phonopy_makes_of_them() -> None:
    """At commensurate q, where folding changes nothing."""
    qpoints = get_commensurate_points(4 * np.eye(3, dtype=int))
    for springs in (STABLE, DIP, SOFT):
        phonon = crystal(springs)
        found = phonon.run_qpoints(qpoints).frequencies[:, 0]
        expected = squares(springs, qpoints) / phonon.primitive.masses[0]
        factor = phonon.unit_conversion_factor
        np.testing.assert_allclose(found * np.abs(found) / factor**2, expected, atol=1e-14)


@pytest.mark.parametrize("mesh", [(11, 11, 11), (6, 6, 6), (4, 5, 7)])
@pytest.mark.parametrize("springs", [SOFT, SOFT_NEAR_GAMMA, STABLE])
def test_share_and_lowest_mode_are_those_of_a_sum_over_the_mesh(
    springs: tuple[float, ...], mesh: tuple[int, ...]
) -> None:
    """These springs end before half the supercell: frequencies are known at every q."""
    found = stability(crystal(springs), None, mesh, is_gamma_center=True)
    grid = np.stack(np.meshgrid(*[np.arange(n) / n for n in mesh], indexing="ij"), axis=-1)
    on_mesh = squares(springs, grid.reshape(-1, 3))
    assert found.mesh == mesh
    # three directions are alike; ω² is 0 at Γ, and at no other q within 1e-3
    assert found.share == pytest.approx((on_mesh < -1e-6).mean(), abs=1e-12)
    everywhere = np.concatenate(
        [on_mesh, squares(springs, get_commensurate_points(4 * np.eye(3, dtype=int)))]
    )
    mass, factor = units()
    lowest = -np.sqrt(max(-everywhere.min(), 0) / mass) * factor
    assert found.lowest == pytest.approx(lowest, abs=1e-6)
    if lowest < -1e-3:
        at_q = squares(springs, np.array(found.qpoint))
        assert -np.sqrt(-at_q / mass) * factor == pytest.approx(lowest, abs=1e-6)


def units() -> tuple[float, float]:
    """Return the mass, and what takes the root of eV/(Å² amu) to THz."""
    phonon = crystal(STABLE, 1)
    return phonon.primitive.masses[0], phonon.unit_conversion_factor


def test_a_dip_that_folding_makes_is_told_from_an_instability(direct) -> None:  # type: ignore[no-untyped-def]
    mesh = (20, 20, 20)
    artefact = stability(crystal(DIP), direct(DIP), mesh)
    assert artefact.imaginary and artefact.unstable is False and artefact.sufficient is False
    text = "\n".join([*artefact.lines(), *artefact.remarks()])
    assert "artefact of the supercell" in text and "exact=True" in text
    assert "larger supercell=" in artefact.lines()[-1]

    real = stability(crystal(SOFT_NEAR_GAMMA), direct(SOFT_NEAR_GAMMA), mesh)
    # no q of the supercell is unstable: D(q) computed there says it
    assert real.unstable and not real.commensurate and not real.artefacts
    assert real.lowest < 0 and real.folding == pytest.approx(0, abs=1e-6)
    assert "unstable in this potential" in "\n".join(real.lines())
    assert "F, S and Cv are those of the other modes" in real.remarks()[0]

    commensurate = stability(crystal(SOFT), direct(SOFT), mesh)
    assert commensurate.commensurate and commensurate.unstable

    unknown = stability(crystal(DIP), None, mesh)
    assert unknown.imaginary and unknown.unstable is None and unknown.folding is None


def test_both_at_once(direct) -> None:  # type: ignore[no-untyped-def]
    """An instability at Γ's neighbours of one crystal, and a dip elsewhere, are both named."""
    springs = (0.3, 0.3, 0.0, -0.2)  # soft between q = 0 and 1/4, which 4×4×4 does not see
    seen = stability(crystal(springs), direct(springs), (20, 20, 20))
    assert not seen.imaginary and not seen.sufficient  # half-way the error is large
    whole = stability(crystal(springs, 8), direct(springs), (20, 20, 20))
    assert whole.unstable


def test_a_wide_supercell_suffices(direct) -> None:  # type: ignore[no-untyped-def]
    found = stability(crystal(STABLE, 6), direct(STABLE), (6, 6, 6))
    assert found.sufficient and not found.imaginary and found.remarks() == []
    assert "suffices" in found.lines()[-1] and "not suffice" not in found.lines()[-1]
    # inscribed radius of 9 cells: 13.5 Å, beyond 2·T·cutoff = 12 Å: nothing to compute
    assert direct(SOFT).hessian_range == 12.0
    widest = stability(crystal(SOFT, 9), direct(SOFT), (6, 6, 6))
    assert widest.folding == 0 and widest.unstable and widest.checks == ()
    assert "exact at every q" in widest.lines()[-1]


def test_rounding_of_acoustic_modes_is_no_instability() -> None:
    """Noise of any size in the force constants, and the sum rule broken by it."""
    rng = np.random.default_rng(5)
    negative = 0
    phonon = crystal(STABLE)
    springs = phonon.force_constants
    for noise in (1e-15, 1e-10, 1e-6, 1e-4):
        for _ in range(3):
            changed = springs + noise * rng.normal(size=(1, 64, 3, 3))
            phonon.force_constants = (changed + changed.transpose(0, 1, 3, 2)) / 2
            found = stability(phonon, None, (5, 5, 5))
            assert found.lowest == 0 and found.share == 0
            negative += phonon.run_qpoints([[0, 0, 0]]).frequencies.min() < 0
    assert negative >= 4  # or the test says nothing
    # ω² next to Γ is below zero by little, but by more than rounding
    next_to_gamma = np.array([[0.002, 0.0, 0.0]])
    expected = squares((1.0, -0.2501), next_to_gamma)[0]
    assert -1e-7 < expected < 0
    found = stability(crystal((1.0, -0.2501)), None, (2, 2, 2), next_to_gamma)
    mass, factor = units()
    assert found.lowest == pytest.approx(-np.sqrt(-expected / mass) * factor, rel=1e-4)


def test_commensurate_q_and_those_half_way_between() -> None:
    rng = np.random.default_rng(1)
    for _ in range(20):
        while round(np.linalg.det(columns := rng.integers(-3, 4, (3, 3)))) < 1:
            pass
        points = get_commensurate_points(columns)
        assert are_commensurate(points + rng.integers(-2, 3, points.shape), columns).all()
        assert not are_commensurate(points + 1e-3 * rng.normal(size=points.shape), columns).any()
        middles = between(columns, 1)
        assert not are_commensurate(middles, columns).any()
        assert are_commensurate(2 * middles, columns).all()


def test_isotopes_that_break_the_symmetry_of_the_mesh() -> None:
    """phonopy reduces the mesh by its space group, which knows no masses.

    Three atoms, each soft along an axis of its own; only the light one has the lowest mode.
    """
    cell = PhonopyAtoms(symbols=["Al"] * 3, cell=A * np.eye(3), scaled_positions=np.eye(3) / 2)
    phonon = Phonopy(cell, 3 * np.eye(3, dtype=int), primitive_matrix="P")
    steps = np.round(phonon.supercell.positions[:, None] / A - np.eye(3) / 2, 3) % 3
    force_constants = np.zeros((3, 81, 3, 3))
    for atom in range(3):
        for axis in range(3):
            spring = -0.5 if axis == atom else 1.0
            for step in (1, 2):
                image = (steps[:, atom] == step * np.eye(3)[axis]).all(axis=1)
                force_constants[atom, image] = -spring * np.eye(3)
            home = phonon.primitive.p2s_map[atom]
            force_constants[atom, home] += 2 * spring * np.eye(3)
    lowest = []
    for masses in ([9.0, 9.0, 1.0], [9.0, 1.0, 9.0], [1.0, 9.0, 9.0]):
        phonon.masses = masses
        phonon.force_constants = force_constants
        lowest.append(stability(phonon, None, (2, 2, 2), is_gamma_center=True).lowest)
    # -2·2·0.5 eV/Å² at q = 1/2 along the axis of the light atom
    np.testing.assert_allclose(lowest, -np.sqrt(2.0) * phonon.unit_conversion_factor, rtol=1e-9)


def test_of_a_potential() -> None:
    """``pe.dynamical_matrices`` at every q says what is true."""
    config = small_config(
        species=(11, 17), cutoff=3.3, hidden_irreps="4x0e + 4x1o", l_max=1, scale=20.0
    )
    model = random_potential(config, seed=37)  # of a seed that makes it unstable
    atoms = to_phonopy(as_structure(bulk("NaCl", "rocksalt", a=5.2)))
    phonon = Phonopy(atoms, 3 * np.eye(3, dtype=int), primitive_matrix="P")
    pe.set_force_constants(phonon, model)
    found = stability(phonon, model, (4, 4, 4), is_gamma_center=True)
    assert phonon.mesh is None and phonon.qpoints is None
    qpoints = np.array([*[check.qpoint for check in found.checks], found.worst])
    exact = frequencies(model, phonon, qpoints)
    folded = phonon.run_qpoints(qpoints).frequencies
    for check, direct, interpolated in zip(found.checks, exact, folded, strict=False):
        assert check.exact == pytest.approx(direct.min(), abs=1e-5)
        assert check.interpolated == pytest.approx(interpolated.min(), abs=1e-9)
    assert found.folding == pytest.approx(np.abs(folded[-1] - exact[-1]).max(), abs=1e-6)
    mesh = phonon.run_mesh([4, 4, 4], is_gamma_center=True)
    truth = frequencies(model, phonon, mesh.qpoints)
    assert found.unstable and truth.min() < -0.1
    use_exact_dynamical_matrix(phonon, model, 1e-3)
    converged = stability(phonon, model, (4, 4, 4), is_gamma_center=True)
    assert converged.folding == 0 and converged.unstable
    assert converged.lowest <= truth.min() + 1e-3
    share = (truth < -1e-3).mean(axis=1) @ mesh.weights / mesh.weights.sum()
    assert converged.share == pytest.approx(share)


def frequencies(model: Potential, phonon: Phonopy, qpoints: np.ndarray) -> np.ndarray:
    values = np.linalg.eigvalsh(pe.dynamical_matrices(model, phonon.primitive, qpoints))
    return np.sign(values) * np.sqrt(np.abs(values)) * phonon.unit_conversion_factor


def test_a_generalized_grid_is_told_by_the_number_of_its_q() -> None:
    """phonopy's numbers of such a grid belong to no axes: 1×13×130 for anatase."""
    body_centred = np.array([[-1, 1, 1], [1, -1, 1], [1, 1, -1]]) * np.array([3.0, 3.0, 8.0]) / 2
    cell = PhonopyAtoms(["Si"], cell=body_centred, scaled_positions=[[0, 0, 0]])
    phonon = Phonopy(cell, np.eye(3, dtype=int), primitive_matrix="P")
    phonon.force_constants = np.zeros((1, 1, 3, 3))
    found = stability(phonon, None, 30.0)
    with pytest.warns(RuntimeWarning, match="generalized regular grid"):
        weights = phonon.run_mesh(30.0).weights
    assert found.generalized
    assert f"the mesh of {weights.sum()} q" in found.rows()[0][1]
    assert not stability(phonon, None, (4, 4, 4)).generalized
