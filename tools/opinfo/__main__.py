"""``python -m torch_tvm.tools.opinfo``."""

from torch_tvm.tools.opinfo.command import main

raise SystemExit(main())
