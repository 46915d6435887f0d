from tvm.support import cc as cc
