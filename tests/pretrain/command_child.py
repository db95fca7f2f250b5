"""One process of the command line, alone or of several that torchrun starts."""

import sys

from mae_bench.cli import main

if __name__ == "__main__":
    sys.exit(main())
