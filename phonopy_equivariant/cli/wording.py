"""Messages of the library in the words of the command: parameters become options."""

from __future__ import annotations

import re
from collections.abc import Mapping

# What stands for a parameter that a message of the library names, with the value if it has one.
_OPTIONS = {
    "relax=True": "--relax",
    "exact=True": "--exact",
    "exact=False": "no --exact",
    "nac_params=None": "--nonac",
    "nac_method=": "--nac-method ",
    "nac_range=": "--nac-range ",
    "is_symmetry=False": "--nosym",
    "restart=True": "--restart",
    "compare=True": "--compare",
    "supercell=": "--dim ",
    "second_supercell=": "--dim-fc2 ",
    "symprec=": "--tolerance ",
    "primitive_matrix=": "--pa ",
    "tolerance=": "--exact-tolerance ",
    "symmetry_tolerance=": "--symmetry-tolerance ",
    "fmax=": "--fmax ",
    "index=": "--index ",
    "masses=": "--mass ",
    "model=": "--model ",
    "dtype=": "--dtype ",
    "head=": "--head ",
    "spin=": "--spin ",
    "mesh=": "--mesh ",
    "band_points=": "--band-points ",
    "volumes=": "--volumes ",
    "volume_range=": "--volume-range ",
    "grid=": "--grid ",
    "anisotropic=True": "--anisotropic",
    "tmax=": "--tmax ",
    "tstep=": "--tstep ",
    "pressure=": "--pressure ",
    "eos=": "--eos ",
    "max_cells=": "--max-cells ",
    "max_atoms=": "--max-atoms ",
    "max_structures=": "--max-structures ",
    "threshold=": "--threshold ",
    "temperature=": "--temperature ",
    "snapshots=": "--snapshots ",
    "iterations=": "--iterations ",
    "seed=": "--seed ",
    "recipe=": "--recipe ",
}
# Where a command has another option for a parameter.
_OF_COMMAND: dict[str, dict[str, str]] = {
    "run": {"fmax=": "--relax-fmax "},
    "fc": {"relax=True": "phonopy-equivariant relax", "exact=True": "run --exact"},
    "relax": {"tolerance=": "--tolerance "},
    "converge": {"tolerance=": "--tolerance "},
}


def as_options(text: str, command: str = "") -> str:
    """Return a message with the options of a command in place of parameters, values kept."""
    options: Mapping[str, str] = _OPTIONS | _OF_COMMAND.get(command, {})
    longest_first = sorted(options, key=len, reverse=True)
    pattern = re.compile(
        r"(?<![\w-])(" + "|".join(map(re.escape, longest_first)) + r")([\"']?)(-?\w*)\2"
    )

    def option(match: re.Match[str]) -> str:
        return f"{options[match[1]]}{match[3]}" if match[3] else options[match[1]].rstrip()

    return pattern.sub(option, text)
