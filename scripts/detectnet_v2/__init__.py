"""DetectNet_v2 in PyTorch and NumPy, behind the command line and the spec files of NVIDIA's."""

import os

# PyTorch's threads wait for each other after every operation. Waiting by spinning, the default,
# keeps the awaited one from running where other programs run, too. OpenMP reads this when loaded.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
