"""DetectNet_v2 in PyTorch and NumPy, behind the command line and the spec files of NVIDIA's."""
