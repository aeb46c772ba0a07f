"""The ``kappa`` command: from a crystal to phono3py's thermal conductivity."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy import ndarray

from phonopy_equivariant.catalogue.bundled import DEFAULT_MODEL
from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.defaults import PHONON_MESH, THIRD_ORDER_TOLERANCE
from phonopy_equivariant.errors import PhonopyEquivariantError
from phonopy_equivariant.io.build import build_phonon, set_born_charges
from phonopy_equivariant.io.crystals import Crystal, as_crystal
from phonopy_equivariant.io.supercells import supercell_matrix
from phonopy_equivariant.io.third_order import (
    FILES,
    mesh_options,
    without_mesh_symmetry,
    write_third_order,
)
from phonopy_equivariant.phonons.conductivity import (
    ThermalConductivity,
    conductivity_of,
    read_conductivity,
)
from phonopy_equivariant.phonons.gruneisen import gruneisen_mesh
from phonopy_equivariant.phonons.permutations import composed_permutations
from phonopy_equivariant.phonons.stability import stability
from phonopy_equivariant.phonons.third_order import phonon_of
from phonopy_equivariant.phonons.third_order_report import ThirdOrderReport
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.structure import StructureLike
from phonopy_equivariant.workflows.handover import run_in_process
from phonopy_equivariant.workflows.kappa_options import KappaPlan, is_temperature
from phonopy_equivariant.workflows.options import RelaxationOptions
from phonopy_equivariant.workflows.progress import Progress, Silent
from phonopy_equivariant.workflows.run import provenance
from phonopy_equivariant.workflows.script import is_mesh
from phonopy_equivariant.workflows.third_order import ThirdOrderOptions, third_order_crystal

PLOT = "kappa.pdf"
TEMPERATURES = tuple(range(100, 1001, 100))  # K
_METHODS = ("rta", "lbte")
_REMEDY = "use a larger second_supercell="
_SUFFIXES = (".hdf5", ".yaml", ".dat", ".pdf")  # of phono3py's files


class KappaResult(NamedTuple):
    """What the command has at its end; no κ where phono3py failed or had something else to do."""

    status: int
    report: ThirdOrderReport
    conductivity: ThermalConductivity | None
    files: tuple[str, ...]

    @property
    def conductivities(self) -> tuple[str, ...]:
        """The files with κ, that of :attr:`conductivity` last; several for several --sigma."""
        return tuple(
            name for name in self.files if name.startswith("kappa-") and name.endswith(".hdf5")
        )


def thermal_conductivity(
    structure: StructureLike | Crystal | str | os.PathLike[str],
    model: PotentialLike = DEFAULT_MODEL,
    supercell: str | int | Sequence[int] | Sequence[Sequence[int]] | ndarray = "auto",
    second_supercell: int | Sequence[int] | Sequence[Sequence[int]] | ndarray | None = None,
    relax: bool = False,
    *,
    mesh: float | Sequence[int] = PHONON_MESH,
    temperatures: Sequence[float] = TEMPERATURES,
    method: str = "rta",
    isotopes: bool = False,
    nac_params: Mapping[str, Any] | None = None,
) -> ThermalConductivity:
    """Return the lattice thermal conductivity of a crystal: phono3py on analytic force constants.

    Parameters
    ----------
    structure, model, relax
        As in :func:`phonopy_equivariant.phonons`.
    supercell, second_supercell
        Supercells of third- and second-order force constants; by default the same. ``auto`` grows
        that of third order until its interpolation error is below 1 %.
    mesh
        Three numbers, or a length (Å) from which phono3py makes them.
    temperatures
        K.
    method
        ``rta``, the relaxation time approximation, or ``lbte``, the full linearised equation.
    isotopes
        Whether natural isotopes scatter too.
    nac_params
        Born charges and dielectric tensor, as in phonopy. ``BORN`` files are not looked for.

    Warns
    -----
    UserWarning
        Forces or stress in the crystal; a structure far from the training data; imaginary modes.

    Raises
    ------
    PhonopyEquivariantError
        phono3py is not installed; a structure that is no sound crystal, an element the model does
        not know, a supercell that does not fit into memory; another method, a mesh or temperatures
        that mean nothing; Born charges that ``phonons.charges.require_charges`` refuses.

    Examples
    --------
    >>> import phonopy_equivariant as pe
    >>> from ase.build import bulk
    >>> result = pe.thermal_conductivity(bulk("Si"), supercell=3, mesh=80)  # doctest: +SKIP
    >>> result.isotropic()  # doctest: +SKIP

    """
    if method not in _METHODS:
        raise PhonopyEquivariantError(f"method={method!r}: give one of {', '.join(_METHODS)}.")
    if not len(temperatures) or not all(map(is_temperature, temperatures)):
        raise PhonopyEquivariantError(
            f"temperatures={list(temperatures)}: give temperatures in K, from 0."
        )
    if not is_mesh(mesh):
        raise PhonopyEquivariantError(f"mesh={mesh}: give three positive numbers, or a length (Å).")
    is_auto = isinstance(supercell, str) and supercell == "auto"
    options = ThirdOrderOptions(
        None if is_auto else supercell_matrix(supercell),
        None if second_supercell is None else supercell_matrix(second_supercell),
        RelaxationOptions() if relax else None,
        THIRD_ORDER_TOLERANCE if is_auto else None,
    )
    crystal, potential = as_crystal(structure), as_potential(model)
    if nac_params is not None:
        crystal = dataclasses.replace(crystal, nac_params=nac_params)
    potential.graph(crystal.unitcell)  # elements and overlaps, before anything takes time
    progress = Silent()
    phono3py, report = third_order_crystal(crystal, potential, options, progress)
    _warn_of_imaginary_modes(phono3py, potential, progress)
    if not report.symmetry.reduces_meshes:
        phono3py = without_mesh_symmetry(phono3py)
    phono3py.mesh_numbers = mesh
    phono3py.init_phph_interaction()
    phono3py.run_thermal_conductivity(
        is_LBTE=method == "lbte", temperatures=list(temperatures), is_isotope=isotopes, log_level=0
    )
    conductivity = conductivity_of(phono3py.thermal_conductivity)
    return _with_gruneisen(conductivity, phono3py, potential, progress)


def phono3py_files(
    crystal: Crystal,
    potential: Potential,
    options: ThirdOrderOptions,
    plan: KappaPlan,
    progress: Progress,
) -> tuple[Any, ThirdOrderReport]:
    """Write phono3py's input and force constants; return its object and the report on them.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`.third_order_files`, or Born charges that :func:`.set_born_charges` refuses.

    """
    if plan.is_nac:  # phono3py takes BORN by itself, and would refuse it at the end
        born = set_born_charges(build_phonon(crystal, np.eye(3, dtype=int)), crystal)
        if born:
            progress.say(f"Born charges: from {born}")
    phono3py, report = third_order_crystal(crystal, potential, options, progress)
    _warn_of_imaginary_modes(phono3py, potential, progress)
    write_third_order(phono3py, Path(), provenance(potential))
    goes_on = " ".join(["them", *mesh_options(report.symmetry)])
    progress.say(f"Force constants are in {', '.join(FILES)}; phono3py goes on with {goes_on}.")
    return phono3py, report


def conductivity_files(report: ThirdOrderReport, plan: KappaPlan) -> KappaResult:
    """Run phono3py's script on the files of :func:`phono3py_files`.

    Raises
    ------
    PhonopyEquivariantError
        phono3py fails with an exception of its own.

    """
    start = time.time_ns()
    status = run_phono3py(FILES[0], [*plan.options, *mesh_options(report.symmetry)])
    written = sorted(
        (path.stat().st_mtime_ns, path.name)
        for path in Path().iterdir()
        if path.suffix in _SUFFIXES and path.name not in FILES
    )
    files = tuple(name for when, name in written if when >= start)
    result = KappaResult(status, report, None, files)
    if status or not result.conductivities or "-g" in result.conductivities[-1]:  # one grid point
        return result
    # of the Wigner equation there are no parts of single modes to draw
    with contextlib.suppress(PhonopyEquivariantError):
        return result._replace(conductivity=read_conductivity(Path(result.conductivities[-1])))
    return result


def draw_conductivity(
    conductivity: ThermalConductivity, phono3py: Any, potential: Potential, progress: Progress
) -> None:
    """Draw κ, lifetimes and mode Grüneisen parameters."""
    _with_gruneisen(conductivity, phono3py, potential, progress).write_plot(PLOT)


def run_phono3py(file: str, options: Sequence[str]) -> int:
    """Run phono3py's script on a phono3py YAML file and return its exit status.

    Raises
    ------
    PhonopyEquivariantError
        phono3py fails with an exception of its own.

    """
    from phono3py.scripts.phono3py import (  # type: ignore[import-not-found,import-untyped,unused-ignore]
        run,
    )

    with composed_permutations(), warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        return run_in_process("phono3py", run, file, options)


def _with_gruneisen(
    conductivity: ThermalConductivity, phono3py: Any, potential: Potential, progress: Progress
) -> ThermalConductivity:
    """Return the conductivity with mode Grüneisen parameters of the primitive cell.

    Without them where strain has no answer, which the conductivity does not need.
    """
    try:
        with progress.stage("Mode Grüneisen parameters"):
            gruneisen = gruneisen_mesh(phono3py.primitive, potential)
    except PhonopyEquivariantError as error:
        progress.warn(f"The figure has no mode Grüneisen parameters. {error}")
        return conductivity
    return dataclasses.replace(conductivity, gruneisen=gruneisen)


def _warn_of_imaginary_modes(phono3py: Any, potential: Potential, progress: Progress) -> None:
    """Warn of imaginary modes on the default mesh, and of small supercells of second order."""
    phonon = phonon_of(phono3py)
    phonon.force_constants = phono3py.fc2
    with progress.stage("Imaginary modes, and whether the supercell of second order suffices"):
        found = stability(phonon, potential, PHONON_MESH)
    remarks = found.remarks(_REMEDY)
    if found.sufficient is False and not remarks:
        remarks = [f"the supercell of second order {found.supercell_text(_REMEDY)}."]
    for remark in remarks:
        progress.warn(remark)
    if found.unstable:
        progress.warn(
            "phono3py leaves imaginary modes out: the conductivity is that of the others."
        )
