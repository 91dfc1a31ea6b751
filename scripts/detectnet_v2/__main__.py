"""`python -m detectnet_v2`: the same as the installed program `detectnet_v2`."""

from detectnet_v2.cli import main

if __name__ == "__main__":
    raise SystemExit(main())
