"""Who implements the `detectnet_v2` command line: this project, or one of NVIDIA's containers."""
