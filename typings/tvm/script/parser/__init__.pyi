from tvm.script.parser import ir as ir
