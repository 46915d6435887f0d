from tvm.relax.transform.legalize_ops import nn as nn
