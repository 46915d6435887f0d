// RUN: torch-tvm-opt %s --torch-to-relax --legalize-ops --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[2,3],f32>, %arg1: !torch.vtensor<[3,2],f32>) -> !torch.vtensor<[2,2],f32> {
  %0 = torch.aten.mm %arg0, %arg1 : !torch.vtensor<[2,3],f32>, !torch.vtensor<[3,2],f32> -> !torch.vtensor<[2,2],f32>
  return %0 : !torch.vtensor<[2,2],f32>
}
// CHECK-NOT: R.matmul
// CHECK-LABEL: def main(
// CHECK: R.call_tir(cls.matmul, (arg0, arg1)
