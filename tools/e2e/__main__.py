"""``python -m torch_tvm.tools.e2e``."""

from torch_tvm.tools.e2e.command import main

raise SystemExit(main())
