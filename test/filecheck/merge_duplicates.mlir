// RUN: torch-tvm-opt %s --merge-duplicates | filecheck %s

func.func @main(%x: !torch.vtensor<[2],f32>, %c: !torch.bool) -> (!torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>) {
  %0 = torch.aten.tanh %x : !torch.vtensor<[2],f32> -> !torch.vtensor<[2],f32>
  %1 = torch.aten.tanh %x : !torch.vtensor<[2],f32> -> !torch.vtensor<[2],f32>
  %2 = torch.prim.If %c -> (!torch.vtensor<[2],f32>) {
    %3 = torch.aten.tanh %x : !torch.vtensor<[2],f32> -> !torch.vtensor<[2],f32>
    torch.prim.If.yield %3 : !torch.vtensor<[2],f32>
  } else {
    %4 = torch.aten.abs %x : !torch.vtensor<[2],f32> -> !torch.vtensor<[2],f32>
    torch.prim.If.yield %4 : !torch.vtensor<[2],f32>
  }
  %5 = torch.aten.abs %x : !torch.vtensor<[2],f32> -> !torch.vtensor<[2],f32>
  %one = torch.constant.int 1
  %6 = torch.aten.add.Tensor %1, %5, %one : !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>, !torch.int -> !torch.vtensor<[2],f32>
  return %2, %6 : !torch.vtensor<[2],f32>, !torch.vtensor<[2],f32>
}
// CHECK:      %[[T:.*]] = torch.aten.tanh
// CHECK-NOT:  torch.aten.tanh
// CHECK:      torch.prim.If.yield %[[T]]
// What is inside a branch does not serve outside of it.
// CHECK:      torch.aten.abs
// CHECK:      %[[A:.*]] = torch.aten.abs
// CHECK:      torch.aten.add.Tensor %[[T]], %[[A]]
