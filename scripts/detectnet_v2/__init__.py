"""DetectNet_v2 in PyTorch and NumPy, behind the command line and the spec files of NVIDIA's."""

import os

# PyTorch's threads wait for each other after every operation, and spin meanwhile. Spinning for
# long, the default, keeps the awaited one from running where other programs run, too; not at all
# costs time on an idle machine (benchmarks/waiting.py). OpenMP reads this when it is loaded.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "30000")
