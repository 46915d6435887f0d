from typing import Any

from tvm.script import ir_builder as ir_builder
from tvm.script import parser as parser
from tvm.script import relax as relax
from tvm.script import tirx as tirx
from tvm.script.parser import ir as ir

def from_source(
    program: Any, extra_vars: Any = ..., check_well_formed: Any = ..., s_tir: Any = ..., absent_params: Any = ...
) -> Any: ...
