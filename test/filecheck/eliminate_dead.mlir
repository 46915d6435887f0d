// RUN: torch-tvm-opt %s --eliminate-dead | filecheck %s

func.func @main(%x: !torch.vtensor<[2],f32>) -> !torch.vtensor<[2],f32> {
  %dead = torch.aten.tanh %x : !torch.vtensor<[2],f32> -> !torch.vtensor<[2],f32>
  %only_for_dead = torch.aten.abs %dead : !torch.vtensor<[2],f32> -> !torch.vtensor<[2],f32>
  %none = torch.constant.none
  %message = torch.constant.str "kept"
  torch.prim.RaiseException %message, %none : !torch.str, !torch.none
  %0 = torch.aten.neg %x : !torch.vtensor<[2],f32> -> !torch.vtensor<[2],f32>
  return %0 : !torch.vtensor<[2],f32>
}
// CHECK-NOT: torch.aten.tanh
// CHECK-NOT: torch.aten.abs
// CHECK:     torch.prim.RaiseException
// CHECK:     torch.aten.neg
