// RUN: torch-tvm-opt %s --torch-tvm-canonicalize | filecheck %s

func.func @main(%x: !torch.vtensor<[2,3],f32>) -> !torch.vtensor<[2,3],f32> {
  %int1 = torch.constant.int 1
  %0 = torch.aten.add.Tensor %x, %x, %int1 : !torch.vtensor<[2,3],f32>, !torch.vtensor<[2,3],f32>, !torch.int -> !torch.vtensor<[2,3],f32>
  %int1_0 = torch.constant.int 1
  %1 = torch.aten.add.Tensor %x, %x, %int1_0 : !torch.vtensor<[2,3],f32>, !torch.vtensor<[2,3],f32>, !torch.int -> !torch.vtensor<[2,3],f32>
  %unused = torch.aten.tanh %x : !torch.vtensor<[2,3],f32> -> !torch.vtensor<[2,3],f32>
  %2 = torch.aten.mul.Tensor %0, %1 : !torch.vtensor<[2,3],f32>, !torch.vtensor<[2,3],f32> -> !torch.vtensor<[2,3],f32>
  return %2 : !torch.vtensor<[2,3],f32>
}
// CHECK-LABEL: func.func @main
// CHECK-NOT:     torch.aten.tanh
// CHECK:         %[[SUM:.*]] = torch.aten.add.Tensor
// CHECK-NEXT:    torch.aten.mul.Tensor %[[SUM]], %[[SUM]]
