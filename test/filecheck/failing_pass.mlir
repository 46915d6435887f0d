// RUN: not torch-tvm-opt %s --torch-function-to-torch-backend-pipeline | filecheck %s
// RUN: not torch-tvm-opt %s --torch-tvm-canonicalize | filecheck %s --check-prefix=NAMED

func.func @main(%x: !torch.vtensor) -> !torch.vtensor {
  %0 = torch.aten.tanh %x : !torch.vtensor -> !torch.vtensor
  return %0 : !torch.vtensor
}
// CHECK: error: {{.*}}failing_pass.mlir:4: torch-function-to-torch-backend-pipeline: unsupported by backend contract: tensor with unknown rank
// CHECK-NEXT: func.func @main
// NAMED: error:
// NAMED-NOT: Traceback
