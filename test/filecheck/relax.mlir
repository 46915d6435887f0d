// RUN: torch-tvm-opt %s --torch-tvm-canonicalize --torch-to-relax | filecheck %s
// RUN: torch-tvm-opt %s --torch-tvm-canonicalize --relax-to-tir | filecheck %s --check-prefix=TIR

func.func @main(%x: !torch.vtensor<[2,3],f32>) -> !torch.vtensor<[2,3],f32> {
  %int1 = torch.constant.int 1
  %0 = torch.aten.add.Tensor %x, %x, %int1 : !torch.vtensor<[2,3],f32>, !torch.vtensor<[2,3],f32>, !torch.int -> !torch.vtensor<[2,3],f32>
  %1 = torch.aten.mul.Tensor %0, %0 : !torch.vtensor<[2,3],f32>, !torch.vtensor<[2,3],f32> -> !torch.vtensor<[2,3],f32>
  return %1 : !torch.vtensor<[2,3],f32>
}
// CHECK:      def main(arg0: R.Tensor((2, 3), dtype="float32"))
// CHECK:        lv{{.*}} = R.add(arg0, arg0)
// CHECK-NEXT:   {{.*}} = R.multiply(lv, lv)
// TIR:        @T.prim_func
// TIR:        "tirx.is_scheduled": True
// TIR:        R.call_tir
