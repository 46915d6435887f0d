// RUN: torch-tvm-opt %s --torch-to-relax --legalize-ops --keep-branch-sizes --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[4],f32>, %arg1: !torch.int) -> !torch.vtensor<[?],f32> {
  %none = torch.constant.none
  %float0.000000e00 = torch.constant.float 0.000000e+00
  %int0 = torch.constant.int 0
  %int1 = torch.constant.int 1
  %int2 = torch.constant.int 2
  %0 = torch.aten.sum %arg0, %none : !torch.vtensor<[4],f32>, !torch.none -> !torch.vtensor<[],f32>
  %1 = torch.aten.gt.Scalar %0, %float0.000000e00 : !torch.vtensor<[],f32>, !torch.float -> !torch.vtensor<[],i1>
  %2 = torch.aten.Bool.Tensor %1 : !torch.vtensor<[],i1> -> !torch.bool
  %3 = torch.prim.If %2 -> (!torch.vtensor<[?],f32>) {
    %4 = torch.aten.slice.Tensor %arg0, %int0, %int0, %arg1, %int1 : !torch.vtensor<[4],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[?],f32>
    %5 = torch.aten.mul.Scalar %4, %int2 : !torch.vtensor<[?],f32>, !torch.int -> !torch.vtensor<[?],f32>
    torch.prim.If.yield %5 : !torch.vtensor<[?],f32>
  } else {
    %4 = torch.aten.slice.Tensor %arg0, %int0, %int0, %arg1, %int1 : !torch.vtensor<[4],f32>, !torch.int, !torch.int, !torch.int, !torch.int -> !torch.vtensor<[?],f32>
    %5 = torch.aten.add.Scalar %4, %int1, %int1 : !torch.vtensor<[?],f32>, !torch.int, !torch.int -> !torch.vtensor<[?],f32>
    torch.prim.If.yield %5 : !torch.vtensor<[?],f32>
  }
  return %3 : !torch.vtensor<[?],f32>
}
// CHECK-LABEL: def main(
// CHECK: R.call_tir(cls.sum, (arg0,)
// CHECK: R.call_tir(cls.aten_gt_Scalar, (gv,)
// CHECK: if gv1:
// CHECK-NOT: R.dataflow
// CHECK: R.call_tir(cls.reshape, (arg1,)
// CHECK: R.tensor_to_shape(gv_1)
// CHECK: R.match_cast(gv1_1, R.Shape([n1]))
// CHECK: R.call_tir(cls.aten_slice_Tensor, (arg0, n1)
// CHECK: R.call_tir(cls.multiply, (gv3, n1)
// CHECK: R.match_cast(gv5, R.Tuple(R.Tensor(dtype="float32", ndim=1)))
// CHECK: R.call_tir(cls.reshape, (arg1,)
// CHECK: R.tensor_to_shape(gv6)
// CHECK: R.match_cast(gv7, R.Shape([n2]))
// CHECK: R.call_tir(cls.aten_slice_Tensor, (arg0, n2)
// CHECK: R.call_tir(cls.add, (gv9, n2)
// CHECK: R.match_cast(gv11, R.Tuple(R.Tensor(dtype="float32", ndim=1)))
// CHECK: R.match_cast(gv14[0], R.Tensor((d3,), dtype="float32"))
