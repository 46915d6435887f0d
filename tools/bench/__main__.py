import sys

from torch_tvm.tools.bench.command import main

if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
