// RUN: not torch-tvm-opt %s --verify-contract | filecheck %s

func.func @main(%x: !torch.vtensor) -> !torch.vtensor {
  %0 = torch.aten.tanh %x : !torch.vtensor -> !torch.vtensor
  return %0 : !torch.vtensor
}
// CHECK:      error: {{.*}}verify_contract.mlir:4: torch.aten.tanh: the rank of the result is unknown
