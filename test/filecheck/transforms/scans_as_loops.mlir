// RUN: torch-tvm-opt %s --torch-to-relax --scans-as-loops --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[4],si64>) -> !torch.vtensor<[7],si64> {
  %int7 = torch.constant.int 7
  %0 = torch.aten.repeat_interleave.Tensor %arg0, %int7 : !torch.vtensor<[4],si64>, !torch.int -> !torch.vtensor<[7],si64>
  return %0 : !torch.vtensor<[7],si64>
}
// CHECK-LABEL: def cumsum(
// CHECK: T.sblock("cumsum_generic")
// CHECK-LABEL: def main(
// CHECK-NOT: R.cumsum
// CHECK: R.call_tir(cls.cumsum, (arg0,)
