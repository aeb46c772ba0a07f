"""phonopy's own script on an exact dynamical matrix."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray
from phonopy import Phonopy, __version__
from phonopy.cui import phonopy_script
from phonopy.harmonic.dynamical_matrix import DynamicalMatrix

from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.phonons.cells import (
    primitive_operations,
    supercell_images,
    supercell_of_primitive,
)
from phonopy_equivariant.response.symmetry.star import (
    commensurate_grid,
    compact_force_constants,
    fill_star,
)


def folded_force_constants(
    phonon: Phonopy, matrix: DynamicalMatrix
) -> Float[ndarray, "prim super 3 3"]:
    """Return compact force constants of ``phonon.supercell`` that D(q) folds into, eV/Å².

    Those of the periodic supercell, to the range error of ``matrix``: D(q) at the commensurate
    q, transformed back. phonopy's files hold these.
    """
    primitive = phonon.primitive
    symmetry = primitive_operations(phonon, parity=False)  # right for every potential
    grid = commensurate_grid(supercell_of_primitive(phonon), symmetry)
    values = []
    for point in grid.qpoints[grid.irreducible]:
        q = point - np.rint(point)  # phonopy's sum over dipoles is made for the first zone
        matrix.run(q)
        weight = np.sqrt(primitive.masses) * np.exp(-2j * np.pi * primitive.scaled_positions @ q)
        columns = np.repeat(weight, 3)
        # back to the lattice gauge
        values.append(columns.conj()[:, None] * matrix.dynamical_matrix * columns)
    on_grid = fill_star(grid, symmetry, np.array(values))
    owner, cells = supercell_images(phonon)
    return compact_force_constants(grid, on_grid, cells, owner, np.array(primitive.p2s_map))


def hold_folded(phonon: Phonopy) -> None:
    """Give an object in exact mode folded force constants as well, which phonopy asks for.

    phonopy's functions and files then find force constants, and meshes run on the exact matrix.
    """
    matrix: Any = phonon.dynamical_matrix
    phonon.force_constants = folded_force_constants(phonon, matrix)
    phonon._dynamical_matrix = matrix


Calculation = Callable[..., None]
_CALCULATION = "_run_calculation"  # of phonopy's script


def can_wrap() -> bool:
    """Whether the installed phonopy has the function that :func:`wrapped_calculation` wraps."""
    return hasattr(phonopy_script, _CALCULATION)


@contextlib.contextmanager
def wrapped_calculation(wrap: Callable[[Calculation], Calculation]) -> Iterator[None]:
    """Wrap the calculation of phonopy's script with ``wrap`` while this context is open.

    The wrapped function is ``_run_calculation`` (phonopy 4.7 to 4.10). The script calls it with the
    Phonopy object, settings and two more arguments.

    Raises
    ------
    PhonopyEquivariantError
        The installed phonopy lacks that function.

    """
    original = getattr(phonopy_script, _CALCULATION, None)
    if original is None:
        raise PhonopyEquivariantError(
            f"The script of phonopy {__version__} is not the one of 4.7 to 4.10, which exact=True "
            "and several calculations in one run need; install one of those, or give one of -t, "
            "--dos, --irreps, ... at a time and use pe.use_exact_dynamical_matrix in Python."
        )
    setattr(phonopy_script, _CALCULATION, wrap(original))
    try:
        yield
    finally:
        setattr(phonopy_script, _CALCULATION, original)


def exact_calculation(matrix: DynamicalMatrix) -> contextlib.AbstractContextManager[None]:
    """Let phonopy's script run its calculations on ``matrix`` while this context is open.

    The script's phonopy object gets the matrix before each calculation. Afterwards it gets its own
    force constants back, because the script writes them to files last.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`wrapped_calculation`; or the script reads another primitive cell.

    """

    def on_matrix(calculate: Calculation) -> Calculation:
        def calculation(phonon: Phonopy, *arguments: Any) -> None:
            _check_primitive(phonon, matrix)
            of_script = phonon.force_constants
            phonon.force_constants = None
            phonon._dynamical_matrix = matrix  # type: ignore[assignment]
            calculate(phonon, *arguments)
            phonon.force_constants = of_script

        return calculation

    return wrapped_calculation(on_matrix)


def _check_primitive(phonon: Phonopy, matrix: DynamicalMatrix) -> None:
    """Raise unless the script works on the primitive cell that the matrix belongs to."""
    ours, theirs = matrix.primitive, phonon.primitive
    same_cell = len(ours) == len(theirs) and all(
        np.allclose(a, b, rtol=0, atol=1e-6)
        for a, b in (
            (ours.cell, theirs.cell),
            (ours.scaled_positions, theirs.scaled_positions),
            (ours.masses, theirs.masses),
        )
    )
    if not same_cell:
        raise PhonopyEquivariantError(
            "phonopy's options change the primitive cell or its masses after the exact dynamical "
            "matrix was made; leave primitive_matrix= away, or compute with exact=False."
        )
