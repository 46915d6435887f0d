// RUN: torch-tvm-opt %s --order-constants | filecheck %s
// RUN: torch-tvm-opt %s --order-operations | filecheck %s --check-prefix=OPS

func.func @main(%x: !torch.vtensor<[2],f32>) -> (!torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>) {
  %0 = torch.aten.abs %x : !torch.vtensor<[2],f32> -> !torch.vtensor<[2],f32>
  %two = torch.constant.int 2
  %one = torch.constant.int 1
  %1 = torch.aten.add.Scalar %x, %one, %two : !torch.vtensor<[2],f32>, !torch.int, !torch.int -> !torch.vtensor<[2],f32>
  return %1, %0 : !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>
}
// CHECK:      torch.constant.int 1
// CHECK-NEXT: torch.constant.int 2
// CHECK-NEXT: torch.aten.abs
// CHECK-NEXT: torch.aten.add.Scalar
// OPS:        torch.aten.add.Scalar
// OPS-NEXT:   torch.aten.abs
