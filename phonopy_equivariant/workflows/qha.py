"""Quasi-harmonic approximation of a crystal: from a structure to phonopy's result."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from jaxtyping import Float
from numpy import ndarray

from phonopy_equivariant import defaults
from phonopy_equivariant.catalogue.bundled import DEFAULT_MODEL
from phonopy_equivariant.checkpoints.load import PotentialLike, as_potential
from phonopy_equivariant.io.crystals import Crystal, as_crystal
from phonopy_equivariant.io.supercells import supercell_matrix
from phonopy_equivariant.phonons.anisotropic_qha import (
    AnisotropicQuasiHarmonic,
    anisotropic_quasi_harmonic,
    conventional_cell,
    free_axes,
    strained_cells,
)
from phonopy_equivariant.phonons.qha import QuasiHarmonic, quasi_harmonic
from phonopy_equivariant.phonons.samples import Sample
from phonopy_equivariant.potential import Potential
from phonopy_equivariant.structure import StructureLike
from phonopy_equivariant.workflows.options import PhononOptions, QHAOptions
from phonopy_equivariant.workflows.progress import Progress, Silent
from phonopy_equivariant.workflows.volumes import (
    Recipe,
    at_rest,
    in_cell,
    recipe_for,
    scaled,
    supercell_remark,
)


def qha(
    structure: StructureLike | Crystal | str | os.PathLike[str],
    model: PotentialLike = DEFAULT_MODEL,
    supercell: int | Sequence[int] | Sequence[Sequence[int]] | ndarray | None = None,
    exact: bool = False,
    *,
    volumes: int = defaults.VOLUMES,
    volume_range: tuple[float, float] = defaults.VOLUME_RANGE,
    mesh: float | Sequence[int] = defaults.MESH,
    tmax: float = defaults.T_MAX,
    tstep: float = defaults.T_STEP,
    pressure: float = 0.0,
    eos: str = "vinet",
    fmax: float = defaults.VOLUME_FMAX,
    nac_params: Mapping[str, Any] | None = None,
    compare: bool = True,
    keep: str | os.PathLike[str] | None = None,
) -> QuasiHarmonic:
    """Return thermal expansion, bulk modulus, heat capacity and more at constant pressure.

    The crystal is relaxed to its volume at rest. At several volumes around it atoms and the shape
    of the cell are relaxed in the space group, force constants and free energies computed, and
    phonopy's ``run_qha`` fits them. Volumes with imaginary modes are left out.

    Parameters
    ----------
    structure, model, supercell, exact
        As in :func:`phonopy_equivariant.phonons`.
    volumes, volume_range
        Number of volumes, and the lowest and highest change (%) from the volume at rest.
    mesh
        Three numbers of a mesh that contains Γ, or a length (Å) that gives them; the same numbers
        at every volume.
    tmax, tstep
        Highest temperature and step, K, from 0.
    pressure
        GPa; the volumes are around the volume at rest under this pressure.
    eos
        ``vinet``, ``birch_murnaghan`` or ``murnaghan``.
    fmax
        Largest force (eV/Å) after a relaxation.
    nac_params
        Born charges and dielectric tensor, as in phonopy, the same at every volume.
    compare
        Whether to compute thermal expansion at one volume too, from analytic Grüneisen parameters
        and elastic constants (:func:`.thermal_expansion`).
    keep
        Folder for ``phonopy_params-NN.yaml`` of each volume.

    Returns
    -------
    QuasiHarmonic
        phonopy's own result is its ``phonopy``.

    Warns
    -----
    UserWarning
        A volume is left out; volumes at high temperature lie outside those computed; a structure
        far from the training data.

    Raises
    ------
    PhonopyEquivariantError
        A structure that is no sound crystal, an element the model does not know, options that
        mean nothing; a relaxation does not converge; fewer than five volumes are left.

    Examples
    --------
    >>> import phonopy_equivariant as pe
    >>> from ase.build import bulk
    >>> result = pe.qha(bulk("MgO", "rocksalt", a=4.21))  # doctest: +SKIP
    >>> result.at(300)["thermal_expansion"]  # doctest: +SKIP

    """
    matrix = None if supercell is None else supercell_matrix(supercell)
    options = QHAOptions(
        phonons=PhononOptions(matrix, None, exact),
        volumes=volumes,
        volume_range=volume_range,
        mesh=mesh,
        tmax=tmax,
        tstep=tstep,
        pressure=pressure,
        eos=eos,
        fmax=fmax,
        nac_params=nac_params,
        compare=compare,
        keep=keep,
    )
    return qha_of_crystal(as_crystal(structure), as_potential(model), options, Silent())


def anisotropic_qha(
    structure: StructureLike | Crystal | str | os.PathLike[str],
    model: PotentialLike = DEFAULT_MODEL,
    supercell: int | Sequence[int] | Sequence[Sequence[int]] | ndarray | None = None,
    exact: bool = False,
    *,
    grid: int | None = None,
    volume_range: tuple[float, float] = defaults.VOLUME_RANGE,
    mesh: float | Sequence[int] = defaults.MESH,
    tmax: float = defaults.T_MAX,
    tstep: float = defaults.T_STEP,
    pressure: float = 0.0,
    fmax: float = defaults.VOLUME_FMAX,
    nac_params: Mapping[str, Any] | None = None,
    compare: bool = True,
    keep: str | os.PathLike[str] | None = None,
) -> AnisotropicQuasiHarmonic:
    """Return thermal expansion along the axes of a crystal with two or three free lengths.

    The conventional cell of the crystal is strained on a grid of its free lengths. Atoms are
    relaxed in each cell, and phonopy's ``run_anisotropic_qha`` minimises the free energy over the
    lengths at each temperature. For tetragonal, trigonal, hexagonal and orthorhombic crystals.

    Parameters
    ----------
    structure, model, exact
        As in :func:`phonopy_equivariant.phonons`.
    supercell
        Of the conventional cell.
    grid
        Number of lengths along each free axis, four at least; by default five along two axes and
        four along three.
    volume_range
        Lowest and highest change of the volume at rest, %; a length changes by a third of it.
    mesh, tmax, tstep, pressure, fmax, nac_params, compare, keep
        As in :func:`qha`.

    Raises
    ------
    PhonopyEquivariantError
        As :func:`qha`; the crystal is cubic, monoclinic or triclinic.

    """
    matrix = None if supercell is None else supercell_matrix(supercell)
    options = QHAOptions(
        phonons=PhononOptions(matrix, None, exact),
        volume_range=volume_range,
        grid=grid,
        mesh=mesh,
        tmax=tmax,
        tstep=tstep,
        pressure=pressure,
        fmax=fmax,
        nac_params=nac_params,
        compare=compare,
        keep=keep,
    )
    return anisotropic_qha_of_crystal(as_crystal(structure), as_potential(model), options, Silent())


def qha_of_crystal(
    crystal: Crystal, potential: Potential, options: QHAOptions, progress: Progress
) -> QuasiHarmonic:
    """Return phonopy's quasi-harmonic result of a crystal: see :func:`qha`."""
    crystal = at_rest(crystal, potential, options, progress)
    recipe = recipe_for(crystal, potential, options, progress)
    computed = _samples_of_volumes(crystal, recipe, progress)
    with progress.stage("phonopy's quasi-harmonic approximation"):
        fit, remarks = quasi_harmonic(
            computed, _temperatures(options), recipe.mesh, options.pressure, options.eos
        )
    expansion = recipe.expansion(crystal, progress)
    result = QuasiHarmonic(potential.name, computed, fit, recipe.mesh, options.pressure, expansion)
    _say_remarks(remarks, result.extrapolated_from, progress)
    return result


def _samples_of_volumes(crystal: Crystal, recipe: Recipe, progress: Progress) -> tuple[Sample, ...]:
    """Return the crystal at all volumes, ascending, each relaxed from the nearest one before."""
    changes = np.linspace(*recipe.options.volume_range, recipe.options.volumes) / 100
    outwards = [int(k) for k in np.argsort(np.abs(changes), kind="stable")]
    relaxed = [(0.0, crystal)]
    samples: dict[int, Sample] = {}
    for k in progress.track(f"{len(changes)} volumes", outwards):
        change = float(changes[k])
        _, neighbour = min(relaxed, key=lambda pair: abs(pair[0] - changes[k]))
        start = scaled(neighbour, crystal.unitcell.volume * (1 + change))
        relaxed.append((change, recipe.relaxed(start, shape=True)))
        samples[k] = recipe.sample(relaxed[-1][1], k, direct=k == outwards[0])
    ascending = tuple(samples[k] for k in sorted(samples))
    _say_problems(ascending, samples[outwards[0]], progress)
    return ascending


def anisotropic_qha_of_crystal(
    crystal: Crystal, potential: Potential, options: QHAOptions, progress: Progress
) -> AnisotropicQuasiHarmonic:
    """Return phonopy's anisotropic quasi-harmonic result: see :func:`anisotropic_qha`."""
    unitcell = conventional_cell(crystal.unitcell, options.symprec)
    if unitcell is not crystal.unitcell:
        progress.say(f"The conventional cell of {len(unitcell)} atoms is taken.")
        crystal = dataclasses.replace(crystal, unitcell=unitcell, supercell_matrix=None)
    crystal = dataclasses.replace(crystal, primitive_matrix=None, constraints=())
    crystal = at_rest(crystal, potential, options, progress)
    recipe = recipe_for(crystal, potential, options, progress)
    strains = tuple((1 + change / 100) ** (1 / 3) - 1 for change in options.volume_range)
    unitcell = crystal.unitcell
    grid = options.grid or (5 if free_axes(unitcell, options.symprec) == 2 else 4)
    cells = strained_cells(unitcell, grid, strains, options.symprec)
    samples, last = [], crystal
    for k, cell in progress.track(f"{len(cells)} cells", list(enumerate(cells))):
        last = recipe.relaxed(in_cell(last, cell), shape=False)
        samples.append(recipe.sample(last, k, direct=k == 0))
    _say_problems(samples, samples[0], progress)
    with progress.stage("phonopy's anisotropic quasi-harmonic approximation"):
        fit, remarks = anisotropic_quasi_harmonic(
            samples, _temperatures(options), recipe.mesh, options.pressure
        )
    result = AnisotropicQuasiHarmonic(
        potential.name,
        tuple(samples),
        fit,
        recipe.mesh,
        options.pressure,
        recipe.expansion(crystal, progress),
    )
    _say_remarks(remarks, result.extrapolated_from, progress)
    return result


def _temperatures(options: QHAOptions) -> Float[ndarray, " n"]:
    """Return temperatures from 0 with one more than asked for, which phonopy's differences take."""
    count = int(np.floor(options.tmax / options.tstep + 1e-6)) + 2
    return np.arange(count) * options.tstep


def _say_problems(samples: Sequence[Sample], direct: Sample, progress: Progress) -> None:
    """Warn of samples that are left out, and of a supercell too small for the one looked at."""
    for remark in (supercell_remark(direct), *(sample.remark() for sample in samples)):
        if remark:
            progress.warn(remark)


def _say_remarks(
    remarks: Sequence[str], extrapolated_from: float | None, progress: Progress
) -> None:
    for remark in remarks:
        speak: Callable[[str], None] = progress.say if "skipped" in remark else progress.warn
        speak(f"phonopy: {remark}")
    if extrapolated_from is not None:
        progress.warn(
            f"from {extrapolated_from:g} K on the crystal is larger or smaller than all that were "
            "computed: the fit is extrapolated; widen volume_range=, or lower tmax=."
        )
