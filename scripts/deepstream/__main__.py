"""`python -m deepstream -c app.txt`: the desk deepstream-app."""

import sys

from deepstream.cli import main

if __name__ == "__main__":
    sys.exit(main())
