// RUN: torch-tvm-opt %s --apply-patterns | filecheck %s

func.func @main(%x: !torch.vtensor<[2,3,4],f32>, %w: !torch.vtensor<[5,12],f32>) -> (!torch.vtensor<[2,12],f32>, !torch.vtensor<[12,5],f32>) {
  %int1 = torch.constant.int 1
  %int-1 = torch.constant.int -1
  %p = torch.constant.float 5.000000e-01
  %false = torch.constant.bool false
  %0 = torch.aten.flatten.using_ints %x, %int1, %int-1 : !torch.vtensor<[2,3,4],f32>, !torch.int, !torch.int -> !torch.vtensor<[2,12],f32>
  %1 = torch.aten.dropout %0, %p, %false : !torch.vtensor<[2,12],f32>, !torch.float, !torch.bool -> !torch.vtensor<[2,12],f32>
  %2 = torch.aten.t %w : !torch.vtensor<[5,12],f32> -> !torch.vtensor<[12,5],f32>
  return %1, %2 : !torch.vtensor<[2,12],f32>, !torch.vtensor<[12,5],f32>
}
// CHECK-NOT: torch.aten.flatten
// CHECK:     %[[V:.*]] = torch.aten.view
// CHECK-NOT: torch.aten.dropout
// CHECK:     %[[P:.*]] = torch.aten.permute
// CHECK-NOT: torch.aten.t %
// CHECK:     return %[[V]], %[[P]]
