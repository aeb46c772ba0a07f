"""From a molecule and its Hessian to frequencies, irreps, selection rules and thermochemistry."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from ase import Atoms
from ase.thermochemistry import IdealGasThermo
from ase.vibrations import VibrationsData
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant.defaults import PRESSURE, SYMMETRY_TOLERANCE, TEMPERATURE
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.molecules.characters import CharacterTable
from phonopy_equivariant.molecules.followed import follow_symmetry
from phonopy_equivariant.molecules.intensities import (
    RamanActivities,
    infrared_intensities,
    raman_activities,
)
from phonopy_equivariant.molecules.modes import (
    QUANTUM,
    NormalModes,
    is_linear,
    normal_modes,
)
from phonopy_equivariant.molecules.multiplets import Multiplet
from phonopy_equivariant.molecules.operations import Symmetry, find_symmetry
from phonopy_equivariant.molecules.structure import as_molecule
from phonopy_equivariant.molecules.tables import ZERO, contents, table_columns, table_rows
from phonopy_equivariant.results import Result
from phonopy_equivariant.structure import StructureLike

if TYPE_CHECKING:  # brings JAX, which a Hessian from a file does without
    from phonopy_equivariant.checkpoints.load import PotentialLike


class Thermochemistry(NamedTuple):
    """Ideal gas, rigid rotor, harmonic oscillator; per molecule, by ``ase.thermochemistry``.

    The potential energy counts as zero where none was given.
    """

    temperature: float  # K
    pressure: float  # Pa
    zero_point_energy: float  # eV
    internal_energy: float  # eV
    enthalpy: float  # eV
    entropy: float  # eV/K
    gibbs: float  # eV
    symmetry_number: int
    left_out: int  # imaginary and zero frequencies, which enter nothing
    spin: float = 0.0  # total electronic spin


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class MolecularVibrations(Result):
    """All that follows from a molecule's Hessian.

    Parameters
    ----------
    atoms
        The molecule, not periodic.
    hessian
        As computed or read, not projected, eV/Å².
    modes
        Normal modes adapted to the point group.
    symmetry
        Point group, operations and how far the atoms are off them.
    table
        Characters of the operations; None for a single atom.
    multiplets
        Modes grouped by irrep, by rising frequency.
    energy, max_force
        Potential energy (eV) and largest force (eV/Å) where a potential gave them.
    infrared
        Intensities of the modes, km/mol, where dipole derivatives were given.
    raman
        Raman activities of the modes where polarizability derivatives were given.
    followed
        The group whose irreps the modes have: that of ``symmetry``, or a smaller one where the
        Hessian is less symmetric than the atoms.
    symmetrised
        Largest change of a frequency (cm⁻¹) by symmetrising the Hessian in this group; zero where
        the modes are those of the Hessian as computed.

    """

    atoms: Atoms
    hessian: Float[ndarray, "atoms 3 atoms 3"]
    modes: NormalModes
    symmetry: Symmetry
    table: CharacterTable | None
    multiplets: tuple[Multiplet, ...]
    energy: float | None = None
    max_force: float | None = None
    infrared: Float[ndarray, " modes"] | None = None
    raman: RamanActivities | None = None
    followed: str = ""
    symmetrised: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return everything but the Hessian as plain values, as it stands in vibrations.yaml."""
        return contents(self)

    def columns(self) -> list[str]:
        """Return the headings of the table of multiplets."""
        return table_columns(self)

    def rows(self) -> list[list[str]]:
        """Return a row for each multiplet; intensities are sums over its modes."""
        return table_rows(self)

    @property
    def frequencies(self) -> Float[ndarray, " modes"]:
        """Frequencies in cm⁻¹, rising; an imaginary one is negative."""
        return self.modes.frequencies

    @property
    def geometry(self) -> str:
        """``monatomic``, ``linear`` or ``nonlinear``."""
        if len(self.atoms) == 1:
            return "monatomic"
        linear = is_linear(self.atoms.positions, self.modes.masses)
        return "linear" if linear else "nonlinear"

    def to_ase(self) -> VibrationsData:
        """Return ASE's ``VibrationsData`` of the Hessian as computed: all 3N modes."""
        return VibrationsData(self.atoms, self.hessian)

    def thermochemistry(
        self, temperature: float = TEMPERATURE, pressure: float = PRESSURE, spin: float = 0.0
    ) -> Thermochemistry:
        """Return ideal-gas thermochemistry at a temperature (K) and a pressure (Pa).

        The symmetry number is that of the point group; ``spin`` is the total electronic spin.

        Raises
        ------
        PhonopyEquivariantError
            A temperature or pressure that is not positive, or a spin that is no multiple of 1/2.

        """
        if not (
            0 < temperature < np.inf
            and 0 < pressure < np.inf
            and spin >= 0
            and float(2 * spin).is_integer()
        ):
            raise PhonopyEquivariantError(
                f"temperature={temperature}, pressure={pressure}, spin={spin}: temperature and "
                "pressure must be positive, the spin 0 or a multiple of 0.5"
            )
        real = self.frequencies[self.frequencies > ZERO] * QUANTUM
        gas = IdealGasThermo(
            vib_energies=list(real),
            geometry=self.geometry,  # type: ignore[arg-type]
            potentialenergy=self.energy or 0.0,
            atoms=self.atoms,
            symmetrynumber=self.symmetry.rotations,
            spin=spin,
            vib_selection="all",
        )
        return Thermochemistry(
            temperature,
            pressure,
            self.modes.zero_point_energy,
            float(gas.get_internal_energy(temperature, verbose=False)),
            float(gas.get_enthalpy(temperature, verbose=False)),
            float(gas.get_entropy(temperature, pressure, verbose=False)),
            float(gas.get_gibbs_energy(temperature, pressure, verbose=False)),
            self.symmetry.rotations,
            len(self.frequencies) - len(real),
            spin,
        )


def vibrations(
    atoms: StructureLike,
    potential: PotentialLike,
    symmetry_tolerance: float = SYMMETRY_TOLERANCE,
    dipole_derivatives: Float[ndarray, "atoms 3 3"] | None = None,
    polarizability_derivatives: Float[ndarray, "atoms 3 3 3"] | None = None,
) -> MolecularVibrations:
    """Return the vibrations of a molecule in a potential, with its analytic Hessian.

    Parameters
    ----------
    atoms
        At a stationary point, see :func:`relax`; a molecule, or one molecule in a box.
    potential
        A potential, or the name of a model.
    symmetry_tolerance
        Largest distance (Å) of an atom from its place under an operation of the point group.
    dipole_derivatives, polarizability_derivatives
        For intensities: e, indices atom, dipole, displacement; Å², atom, α, α, displacement.

    Raises
    ------
    PhonopyEquivariantError
        Not a molecule, or an element the potential does not know.

    """
    from phonopy_equivariant.checkpoints.load import as_potential
    from phonopy_equivariant.response.autodiff.hessian import graph_hessian

    molecule, potential = as_molecule(atoms), as_potential(potential)
    graph = potential.graph(molecule)
    evaluation = potential.evaluate_graph(graph)
    return analyse_hessian(
        molecule,
        graph_hessian(potential, graph),
        symmetry_tolerance,
        dipole_derivatives,
        polarizability_derivatives,
        energy=evaluation.energy,
        max_force=float(np.linalg.norm(evaluation.forces, axis=1).max()),
    )


def analyse_hessian(
    atoms: StructureLike,
    hessian: Float[ndarray, "..."],
    symmetry_tolerance: float = SYMMETRY_TOLERANCE,
    dipole_derivatives: Float[ndarray, "atoms 3 3"] | None = None,
    polarizability_derivatives: Float[ndarray, "atoms 3 3 3"] | None = None,
    energy: float | None = None,
    max_force: float | None = None,
) -> MolecularVibrations:
    """Return the vibrations that belong to a Hessian of any origin.

    ``hessian`` has ASE's order (N, 3, N, 3), in eV/Å². Masses are those of ``atoms``. Other
    parameters as in :func:`vibrations`.

    Raises
    ------
    PhonopyEquivariantError
        Not a molecule, a Hessian that does not belong to it, a tolerance that is not positive.

    """
    if not 0 < symmetry_tolerance < np.inf:
        raise PhonopyEquivariantError(
            f"symmetry_tolerance={symmetry_tolerance}: give a positive distance in Å."
        )
    molecule = as_molecule(atoms)
    masses = molecule.get_masses()
    modes = normal_modes(molecule.positions, masses, hessian)
    symmetry = find_symmetry(molecule.numbers, molecule.positions, masses, symmetry_tolerance)
    table: CharacterTable | None = None
    multiplets: tuple[Multiplet, ...] = ()
    followed, symmetrised = symmetry.group, 0.0
    if len(molecule) > 1:
        modes, followed, table, multiplets, symmetrised = follow_symmetry(
            molecule.positions, masses, np.asarray(hessian, float), symmetry
        )
    infrared = raman = None
    if dipole_derivatives is not None:
        infrared = infrared_intensities(modes.displacements, dipole_derivatives)
    if polarizability_derivatives is not None:
        raman = raman_activities(modes.displacements, polarizability_derivatives)
    return MolecularVibrations(
        molecule,
        np.asarray(hessian, float),
        modes,
        symmetry,
        table,
        multiplets,
        energy,
        max_force,
        infrared,
        raman,
        followed,
        symmetrised,
    )
