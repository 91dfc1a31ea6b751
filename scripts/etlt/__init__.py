"""NVIDIA's encrypted model files, `.etlt` and `.tlt`, through NVIDIA's own codec."""
