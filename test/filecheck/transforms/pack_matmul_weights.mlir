// RUN: torch-tvm-opt %s --torch-to-relax --pack-matmul-weights --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[4,3],f32>) -> !torch.vtensor<[4,2],f32> {
  %0 = torch.vtensor.literal(dense_resource<weight> : tensor<2x3xf32>) : !torch.vtensor<[2,3],f32>
  %1 = torch.vtensor.literal(dense_resource<bias> : tensor<2xf32>) : !torch.vtensor<[2],f32>
  %2 = torch.aten.linear %arg0, %0, %1 : !torch.vtensor<[4,3],f32>, !torch.vtensor<[2,3],f32>, !torch.vtensor<[2],f32> -> !torch.vtensor<[4,2],f32>
  return %2 : !torch.vtensor<[4,2],f32>
}
// CHECK-LABEL: def main(
// CHECK: R.permute_dims(w0, axes=[1, 0])
// CHECK: R.call_tir(cls.pack_weight, (w0,)
// CHECK: R.call_tir(cls.matmul, (arg0, lv_1)
// CHECK: R.add(lv1, w1)

{-#
  dialect_resources: {
    builtin: {
      weight: "0x100000006C32723E9ACB46BE819E8EBE2B6AD43DA08D99BE8637083E",
      bias: "0x100000000E34E83D7C7BDBBE"
    }
  }
#-}
