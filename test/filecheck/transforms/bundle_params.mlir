// RUN: torch-tvm-opt %s --torch-to-relax --pack-matmul-weights --lift-params --prepack-weights --bundle-params --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[4,3],f32>) -> !torch.vtensor<[4,2],f32> {
  %0 = torch.vtensor.literal(dense_resource<weight> : tensor<2x3xf32>) : !torch.vtensor<[2,3],f32>
  %1 = torch.vtensor.literal(dense_resource<bias> : tensor<2xf32>) : !torch.vtensor<[2],f32>
  %2 = torch.aten.linear %arg0, %0, %1 : !torch.vtensor<[4,3],f32>, !torch.vtensor<[2,3],f32>, !torch.vtensor<[2],f32> -> !torch.vtensor<[4,2],f32>
  return %2 : !torch.vtensor<[4,2],f32>
}
// CHECK-LABEL: def main(
// CHECK: model_params[1]
// CHECK: R.call_tir(cls.matmul, (arg0, lv)
// CHECK: model_params[0]
// CHECK: R.add(lv1, w1)

{-#
  dialect_resources: {
    builtin: {
      weight: "0x100000005C1EC3BEABB4F63E4B31FE3C122E8C3EFB05EDBEF50B2ABE",
      bias: "0x10000000861F11BF444566BE"
    }
  }
#-}
