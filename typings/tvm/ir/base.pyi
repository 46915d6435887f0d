import tvm_ffi.core

class Node(tvm_ffi.core.Object):
    pass
