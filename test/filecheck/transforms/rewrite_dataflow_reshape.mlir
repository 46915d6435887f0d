// RUN: torch-tvm-opt %s --torch-to-relax --legalize-ops --rewrite-dataflow-reshape --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[2,3],f32>) -> !torch.vtensor<[1,2,3],f32> {
  %int0 = torch.constant.int 0
  %0 = torch.aten.relu %arg0 : !torch.vtensor<[2,3],f32> -> !torch.vtensor<[2,3],f32>
  %1 = torch.aten.unsqueeze %0, %int0 : !torch.vtensor<[2,3],f32>, !torch.int -> !torch.vtensor<[1,2,3],f32>
  %2 = torch.aten.relu %1 : !torch.vtensor<[1,2,3],f32> -> !torch.vtensor<[1,2,3],f32>
  return %2 : !torch.vtensor<[1,2,3],f32>
}
// CHECK-LABEL: def main(
// CHECK: R.call_tir(cls.aten_relu, (arg0,)
// CHECK: R.reshape(lv, R.shape([1, 2, 3]))
// CHECK: R.call_tir(cls.aten_relu1, (lv1,)
