"""The desk's side of a Jetson: SSH session, preflight, push of a release, detached benchmark."""
