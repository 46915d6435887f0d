#!/bin/sh
# End-to-end tests from a checkout: tools/e2e_test.sh --filter Conv2d --verbose (torch-tvm-e2e --help has the options).
root=$(cd "$(dirname "$0")/.." && pwd)
python="$root/.venv/bin/python"
[ -x "$python" ] || python=python3
exec "$python" -m torch_tvm.tools.e2e "$@"
