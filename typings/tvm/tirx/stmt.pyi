from tvm.tirx import ForKind as ForKind
