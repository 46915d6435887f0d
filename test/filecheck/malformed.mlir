// RUN: not torch-tvm-opt %s | filecheck %s

func.func @main(%x: !torch.vtensor<[2,3],f32>) {
  %0 = torch.aten.no_such_op %x
  return
}
// CHECK:      error: {{.*}}malformed.mlir:4:8: custom op 'torch.aten.no_such_op' is unknown
// CHECK-NEXT: %0 = torch.aten.no_such_op %x
// CHECK-NEXT: ^
