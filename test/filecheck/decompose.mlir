// RUN: torch-tvm-opt %s --torch-decompose-complex-ops | filecheck %s
// RUN: torch-tvm-opt %s --torch-decompose-complex-ops='legal-ops=aten.addmm' | filecheck %s --check-prefix=LEGAL

func.func @main(%b: !torch.vtensor<[4],f32>, %x: !torch.vtensor<[2,3],f32>, %w: !torch.vtensor<[3,4],f32>) -> !torch.vtensor<[2,4],f32> {
  %int1 = torch.constant.int 1
  %0 = torch.aten.addmm %b, %x, %w, %int1, %int1 : !torch.vtensor<[4],f32>, !torch.vtensor<[2,3],f32>, !torch.vtensor<[3,4],f32>, !torch.int, !torch.int -> !torch.vtensor<[2,4],f32>
  return %0 : !torch.vtensor<[2,4],f32>
}
// CHECK:       torch.aten.mm
// CHECK-NOT:   torch.aten.addmm
// LEGAL-NOT:   torch.aten.mm
// LEGAL:       torch.aten.addmm
