"""A molecule's vibrations as text: a summary, and warnings."""

from __future__ import annotations

import numpy as np
from ase.units import invcm

from phonopy_equivariant.molecules.analysis import MolecularVibrations, Thermochemistry
from phonopy_equivariant.molecules.modes import WAVENUMBER
from phonopy_equivariant.molecules.multiplets import reduction
from phonopy_equivariant.molecules.structure import count_fragments
from phonopy_equivariant.molecules.tables import ZERO

# Above this force (eV/Å) the Hessian is not one of a stationary point.
LARGE_FORCE = 1e-3
# Raw translations and rotations above this (cm⁻¹) say that something is off.
_LARGE_EXTERNAL = 30.0
# A splitting of degenerate modes above this (cm⁻¹) says that symmetry is broken.
_LARGE_SPLITTING = 1.0

NAMES = {"Dinfh": "D∞h", "Cinfv": "C∞v", "Kh": "Kh (atom)"}


def group_text(group: str) -> str:
    """Return the Schoenflies symbol as it is written in text."""
    return NAMES.get(group, group)


def summary_lines(result: MolecularVibrations, gas: Thermochemistry) -> list[str]:
    """Return the lines below the table of modes: symmetry, zero-point energy, thermochemistry."""
    symmetry = result.symmetry
    lines = [
        f"point group          {group_text(symmetry.group)}, "
        f"atoms within {symmetry.deviation:.1e} Å",
    ]
    if result.table is not None:
        if result.table.group != symmetry.group:
            lines.append(f"irreps               of the subgroup {result.table.group}")
        lines.append(f"vibrations           {reduction(result.table, result.multiplets)}")
    external = np.abs(result.modes.external).max()
    lines.append(
        f"before projection    {len(result.modes.external)} translations and rotations within "
        f"{external:.1e} cm⁻¹"
    )
    if result.max_force is not None:
        lines.append(f"largest force        {result.max_force:.1e} eV/Å")
    if result.energy is not None:
        lines.append(f"potential energy     {result.energy:.6f} eV")
    lines += [
        f"zero-point energy    {gas.zero_point_energy:.6f} eV = "
        f"{gas.zero_point_energy / invcm:.1f} cm⁻¹",
        f"ideal gas            {gas.temperature:g} K, {gas.pressure:g} Pa, "
        f"symmetry number {gas.symmetry_number}, spin {gas.spin:g}",
        f"  enthalpy H         {gas.enthalpy:.6f} eV",
        f"  entropy S          {1000 * gas.entropy:.6f} meV/K",
        f"  Gibbs energy G     {gas.gibbs:.6f} eV",
    ]
    return lines


def _negligible(result: MolecularVibrations, fragments: int) -> float:
    """Return the wavenumber up to which modes count as zero.

    Fragments turn against one another at no cost: such a mode has sqrt(F / (1 Å · 1 amu)) or less
    from a residual force F, and from rounding what translations and rotations of the whole have.
    """
    if fragments == 1:
        return ZERO
    of_force = WAVENUMBER * float(np.sqrt(result.max_force or 0.0))
    return max(ZERO, of_force, float(np.abs(result.modes.external).max()))


def remarks(result: MolecularVibrations, spin: float = 0.0) -> list[str]:
    """Return the warnings on a result, a line each; ``spin`` is the thermochemistry's."""
    lines = []
    moving = result.max_force is not None and result.max_force > LARGE_FORCE
    if moving:
        lines.append(
            f"forces of {result.max_force:.2g} eV/Å: not a stationary point of this potential; "
            "use relax=True."
        )
    fragments = count_fragments(result.atoms)
    if fragments > 1:
        lines.append(
            f"the structure falls into {fragments} fragments without bonds between them: modes "
            "near zero may be their relative motion, and ideal-gas numbers mean nothing."
        )
    imaginary = int((result.frequencies < -_negligible(result, fragments)).sum())
    if imaginary:
        lines.append(
            f"imaginary frequencies: {imaginary}; a saddle point, not a minimum; displace the "
            "atoms along such a mode and relax again. Thermochemistry leaves them out."
        )
    external = np.abs(result.modes.external).max()
    if external > _LARGE_EXTERNAL and not moving:
        lines.append(
            f"a translation or rotation has {external:.0f} cm⁻¹ before projection: the Hessian is "
            "not one of a stationary point, or is noisy."
        )
    electrons = int(result.atoms.numbers.sum() - round(result.atoms.get_initial_charges().sum()))
    if (electrons - round(2 * spin)) % 2:
        lines.append(
            f"{electrons} electrons do not go with spin {spin:g} (charges in the file count): "
            "give spin=, 0.5 for a radical; the entropy contains k ln(2S + 1)."
        )
    if result.symmetrised:
        lines.append(
            f"the modes do not follow {group_text(result.symmetry.group)} exactly: frequencies and "
            f"irreps are those of the Hessian symmetrised in {group_text(result.followed)}, which "
            f"changes frequencies by up to {result.symmetrised:.2f} cm⁻¹; relax further."
        )
    elif result.followed != result.symmetry.group:
        lines.append(
            f"the modes do not follow {group_text(result.symmetry.group)}: irreps are those of "
            f"{group_text(result.followed)}; relax further, lower symmetry_tolerance=, or check "
            "that the Hessian belongs to this structure."
        )
    splitting = max((multiplet.splitting for multiplet in result.multiplets), default=0.0)
    if splitting > _LARGE_SPLITTING:
        lines.append(
            f"degenerate modes differ by up to {splitting:.1f} cm⁻¹: the Hessian is less symmetric "
            f"than {group_text(result.symmetry.group)}; relax, or lower symmetry_tolerance=."
        )
    return lines
