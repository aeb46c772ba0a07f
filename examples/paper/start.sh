#!/usr/bin/env bash
# All calculations, one after the other, on one core: start.sh FOLDER
# Started again it goes on; started twice, two processes share the work.
set -euo pipefail
work=$(realpath -m "$1")
python=${PYTHON:-python}
export OMP_NUM_THREADS=1
cd "$(dirname "${BASH_SOURCE[0]}")"

"$python" silicon_dft.py run lattice dfpt 111 222 --work "$work"
"$python" ethanol_dft.py run minimum sampling hessians --work "$work"
"$python" silicon_dft.py run 333 --work "$work"
"$python" ethanol_dft.py run validation around --work "$work"
