"""Make the molecules of this folder: ``python make.py [NAME ...]``, with PySCF installed.

RHF/6-31G (CHFClBr: def2-SVP), analytic Hessian at the minimum of the energy. One .npz for each:

numbers, positions       atoms, Å
masses                   amu, those of PySCF's harmonic analysis (averages over isotopes)
hessian                  (N, 3, N, 3), eV/Å²
frequencies              (modes,), cm⁻¹, by ``pyscf.hessian.thermo.harmonic_analysis``; imaginary
                         ones negative

and for some of them, by central differences of the dipole and of the polarizability (which is
itself a central difference of dipoles in electric fields, since PySCF's module is a package apart):

dipole_derivatives           (N, 3, 3), e: atom, component of the dipole, displacement
polarizability_derivatives   (N, 3, 3, 3), Å²: atom, components of α, displacement
mode_dipoles                 (modes, 3), e/√amu: ∂μ/∂Q, by displacement along PySCF's modes
mode_polarizabilities        (modes, 3, 3), Å²/√amu: ∂α/∂Q, likewise
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from ase.build import molecule
from ase.units import Bohr, Hartree
from pyscf import gto, scf
from pyscf.hessian import thermo

FIELD = 1e-3  # atomic units
STEP = 0.005  # Å, or Å·√amu along a mode

WITH_SPECTRA = ("CH4", "H2O", "CO2", "NH3")
NAMES = (*WITH_SPECTRA, "C2H2", "HCN", "C6H6", "SF6", "CH3CH2OH", "CHFClBr")


def start(name: str) -> tuple[np.ndarray, np.ndarray]:
    if name == "SF6":
        ends = 1.56 * np.vstack([np.eye(3), -np.eye(3)])
        return np.array([16] + [9] * 6), np.vstack([np.zeros(3), ends])
    if name == "CHFClBr":
        corners = np.array([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]]) / 3**0.5
        lengths = np.array([1.07, 1.37, 1.76, 1.93])
        return np.array([6, 1, 9, 17, 35]), np.vstack([np.zeros(3), lengths[:, None] * corners])
    atoms = molecule(name)
    return atoms.numbers, atoms.positions


def solve(
    numbers: np.ndarray, positions: np.ndarray, field: np.ndarray | None = None
) -> scf.hf.RHF:
    atoms = [(int(z), tuple(x)) for z, x in zip(numbers, positions, strict=True)]
    basis = "def2-svp" if 35 in numbers else "6-31g"  # PySCF has no 6-31G for Br
    mol = gto.M(atom=atoms, basis=basis, unit="Angstrom", verbose=0, symmetry=False)
    run = scf.RHF(mol)
    run.conv_tol, run.conv_tol_grad = 1e-12, 1e-8
    if field is not None:
        dipoles = mol.intor_symmetric("int1e_r")
        core = run.get_hcore() + np.einsum("a,aij->ij", field, dipoles)
        run.get_hcore = lambda *_: core
    run.kernel()
    assert run.converged
    return run


def hessian(run: scf.hf.RHF) -> np.ndarray:
    return run.Hessian().kernel()  # (N, N, 3, 3), Hartree/bohr²


def relax(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Newton steps in the space of the six (five) zero modes' complement, to 1e-8 a.u."""
    for _ in range(20):
        run = solve(numbers, positions)
        gradient = run.nuc_grad_method().kernel()
        print("  gradient", np.abs(gradient).max(), flush=True)
        if np.abs(gradient).max() < 1e-7:
            return positions
        values, vectors = np.linalg.eigh(
            hessian(run).transpose(0, 2, 1, 3).reshape(gradient.size, -1)
        )
        # the smallest of true vibrations has 1e-3 a.u.; zero modes have the size of the gradient
        keep = np.abs(values) > 2e-3
        step = -(vectors[:, keep] / values[keep]) @ (vectors[:, keep].T @ gradient.ravel())
        step *= min(1.0, 0.3 / np.abs(step).max())
        positions = positions + step.reshape(-1, 3) * Bohr
    raise RuntimeError("no minimum")


def dipole(
    numbers: np.ndarray, positions: np.ndarray, field: np.ndarray | None = None
) -> np.ndarray:
    return solve(numbers, positions, field).dip_moment(unit="au", verbose=0)


def polarizability(numbers: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """∂μ/∂E, atomic units."""
    rows = [
        (dipole(numbers, positions, e) - dipole(numbers, positions, -e)) / (2 * FIELD)
        for e in FIELD * np.eye(3)
    ]
    return (np.array(rows) + np.array(rows).T) / 2


def along(numbers: np.ndarray, positions: np.ndarray, direction: np.ndarray) -> tuple:
    """Derivatives of dipole (e) and polarizability (Å³) per unit of a direction in Å."""
    ends = [positions + sign * STEP * direction for sign in (1, -1)]
    mu, alpha = ([f(numbers, x) for x in ends] for f in (dipole, polarizability))
    return (mu[0] - mu[1]) * Bohr / (2 * STEP), (alpha[0] - alpha[1]) * Bohr**3 / (2 * STEP)


def make(name: str) -> None:
    print(name, flush=True)
    numbers, positions = start(name)
    positions = relax(numbers, positions)
    run = solve(numbers, positions)
    raw = hessian(run)
    modes = thermo.harmonic_analysis(run.mol, raw)
    wavenumbers = np.asarray(modes["freq_wavenumber"])
    content = {
        "numbers": numbers,
        "positions": positions,
        "masses": run.mol.atom_mass_list(isotope_avg=True),
        "hessian": raw.transpose(0, 2, 1, 3) * (Hartree / Bohr**2),
        "frequencies": np.where(wavenumbers.imag != 0, -np.abs(wavenumbers), wavenumbers.real),
    }
    if name in WITH_SPECTRA:
        count = len(numbers)
        unit = np.eye(3 * count).reshape(-1, count, 3)
        found = [along(numbers, positions, d) for d in unit]
        mu, alpha = (np.array(x) for x in zip(*found, strict=True))
        content["dipole_derivatives"] = mu.reshape(count, 3, 3).transpose(0, 2, 1)
        content["polarizability_derivatives"] = alpha.reshape(count, 3, 3, 3).transpose(0, 2, 3, 1)
        # PySCF's mode is Σ_i m_i x_i² = 1, in Å √amu for a unit of Q
        found = [along(numbers, positions, d) for d in modes["norm_mode"]]
        mu, alpha = (np.array(x) for x in zip(*found, strict=True))
        content |= {"mode_dipoles": mu, "mode_polarizabilities": alpha}
        norm = np.einsum("kia,i->k", modes["norm_mode"] ** 2, content["masses"])
        assert np.allclose(norm, 1), norm
    np.savez_compressed(Path(__file__).with_name(f"{name}.npz"), **content)
    print("  ", np.round(content["frequencies"], 2))


if __name__ == "__main__":
    for each in sys.argv[1:] or NAMES:
        make(each)
