// RUN: torch-tvm-opt %s --torch-to-relax --pack-matmul-weights --lift-params --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[4,3],f32>) -> !torch.vtensor<[4,2],f32> {
  %0 = torch.vtensor.literal(dense_resource<weight> : tensor<2x3xf32>) : !torch.vtensor<[2,3],f32>
  %1 = torch.vtensor.literal(dense_resource<bias> : tensor<2xf32>) : !torch.vtensor<[2],f32>
  %2 = torch.aten.linear %arg0, %0, %1 : !torch.vtensor<[4,3],f32>, !torch.vtensor<[2,3],f32>, !torch.vtensor<[2],f32> -> !torch.vtensor<[4,2],f32>
  return %2 : !torch.vtensor<[4,2],f32>
}
// CHECK-LABEL: def main_transform_params(
// CHECK: model_params[0]
// CHECK: R.call_tir(cls.pack_weight, (w01,)
// CHECK: model_params[1]
// CHECK-LABEL: def main(
// CHECK: R.call_tir(cls.matmul, (arg0, lv)
// CHECK: R.add(lv1, w1)

{-#
  dialect_resources: {
    builtin: {
      weight: "0x10000000F6DD873DBE300DBE6FA2A6BE31DEA5BE0A76E3BE8E72C63E",
      bias: "0x100000005427D23EDA9286BD"
    }
  }
#-}
