"""DetectNet_v2 with NVIDIA's command line, specs and files, on PyTorch."""
