"""End-to-end tests: every program by every frontend, compiled or interpreted, and compared with eager:
``torch-tvm-e2e``.
"""

from torch_tvm.tools.e2e.case import Case, Program, case
from torch_tvm.tools.e2e.command import main

__all__ = ["Case", "Program", "case", "main"]
