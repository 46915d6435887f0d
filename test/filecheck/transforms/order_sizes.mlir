// RUN: torch-tvm-opt %s --torch-to-relax --legalize-ops --annotate-tir-op-pattern --fuse-ops --order-sizes --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[4],f32>, %arg1: !torch.vtensor<[4],f32>) -> !torch.vtensor<[4],f32> {
  %float1.000000e00 = torch.constant.float 1.000000e+00
  %float0.000000e00 = torch.constant.float 0.000000e+00
  %none = torch.constant.none
  %0 = torch.aten.gt.Scalar %arg1, %float1.000000e00 : !torch.vtensor<[4],f32>, !torch.float -> !torch.vtensor<[4],i1>
  %1 = torch.aten.gt.Scalar %arg0, %float0.000000e00 : !torch.vtensor<[4],f32>, !torch.float -> !torch.vtensor<[4],i1>
  %2 = torch.prim.ListConstruct %1 : (!torch.vtensor<[4],i1>) -> !torch.list<optional<vtensor>>
  %3 = torch.aten.index.Tensor %arg0, %2 : !torch.vtensor<[4],f32>, !torch.list<optional<vtensor>> -> !torch.vtensor<[?],f32>
  %4 = torch.aten.sum %3, %none : !torch.vtensor<[?],f32>, !torch.none -> !torch.vtensor<[],f32>
  %5 = torch.aten.masked_fill.Tensor %arg1, %0, %4 : !torch.vtensor<[4],f32>, !torch.vtensor<[4],i1>, !torch.vtensor<[],f32> -> !torch.vtensor<[4],f32>
  return %5 : !torch.vtensor<[4],f32>
}
// CHECK-LABEL: def main(
// CHECK: R.call_tir(cls.count
// CHECK: R.match_cast
// CHECK: R.call_tir(cls.positions
// CHECK: R.call_tir(cls.aten_index_Tensor
