// RUN: torch-tvm-opt %s --torch-to-relax --fuse-sibling-matmuls --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[1,3,4],f32>) -> !torch.vtensor<[1,2,3,2],f32> {
  %0 = torch.vtensor.literal(dense_resource<q.weight> : tensor<4x4xf32>) : !torch.vtensor<[4,4],f32>
  %1 = torch.vtensor.literal(dense_resource<q.bias> : tensor<4xf32>) : !torch.vtensor<[4],f32>
  %int1 = torch.constant.int 1
  %int3 = torch.constant.int 3
  %int2 = torch.constant.int 2
  %int0 = torch.constant.int 0
  %2 = torch.vtensor.literal(dense_resource<k.weight> : tensor<4x4xf32>) : !torch.vtensor<[4,4],f32>
  %3 = torch.vtensor.literal(dense_resource<k.bias> : tensor<4xf32>) : !torch.vtensor<[4],f32>
  %4 = torch.vtensor.literal(dense_resource<v.weight> : tensor<4x4xf32>) : !torch.vtensor<[4,4],f32>
  %5 = torch.vtensor.literal(dense_resource<v.bias> : tensor<4xf32>) : !torch.vtensor<[4],f32>
  %none = torch.constant.none
  %float0.000000e00 = torch.constant.float 0.000000e+00
  %false = torch.constant.bool false
  %6 = torch.aten.linear %arg0, %0, %1 : !torch.vtensor<[1,3,4],f32>, !torch.vtensor<[4,4],f32>, !torch.vtensor<[4],f32> -> !torch.vtensor<[1,3,4],f32>
  %7 = torch.prim.ListConstruct %int1, %int3, %int2, %int2 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %8 = torch.aten.view %6, %7 : !torch.vtensor<[1,3,4],f32>, !torch.list<int> -> !torch.vtensor<[1,3,2,2],f32>
  %9 = torch.prim.ListConstruct %int0, %int2, %int1, %int3 : (!torch.int, !torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %10 = torch.aten.permute %8, %9 : !torch.vtensor<[1,3,2,2],f32>, !torch.list<int> -> !torch.vtensor<[1,2,3,2],f32>
  %11 = torch.aten.linear %arg0, %2, %3 : !torch.vtensor<[1,3,4],f32>, !torch.vtensor<[4,4],f32>, !torch.vtensor<[4],f32> -> !torch.vtensor<[1,3,4],f32>
  %12 = torch.aten.view %11, %7 : !torch.vtensor<[1,3,4],f32>, !torch.list<int> -> !torch.vtensor<[1,3,2,2],f32>
  %13 = torch.aten.permute %12, %9 : !torch.vtensor<[1,3,2,2],f32>, !torch.list<int> -> !torch.vtensor<[1,2,3,2],f32>
  %14 = torch.aten.linear %arg0, %4, %5 : !torch.vtensor<[1,3,4],f32>, !torch.vtensor<[4,4],f32>, !torch.vtensor<[4],f32> -> !torch.vtensor<[1,3,4],f32>
  %15 = torch.aten.view %14, %7 : !torch.vtensor<[1,3,4],f32>, !torch.list<int> -> !torch.vtensor<[1,3,2,2],f32>
  %16 = torch.aten.permute %15, %9 : !torch.vtensor<[1,3,2,2],f32>, !torch.list<int> -> !torch.vtensor<[1,2,3,2],f32>
  %17 = torch.aten.scaled_dot_product_attention %10, %13, %16, %none, %float0.000000e00, %false, %none, %false {torch_tvm.memory_order = [array<i64: 0, 2, 1, 3>, array<i64: 0, 2, 1, 3>, array<i64: 0, 2, 1, 3>, array<i64>, array<i64>, array<i64>, array<i64>, array<i64>]} : !torch.vtensor<[1,2,3,2],f32>, !torch.vtensor<[1,2,3,2],f32>, !torch.vtensor<[1,2,3,2],f32>, !torch.none, !torch.float, !torch.bool, !torch.none, !torch.bool -> !torch.vtensor<[1,2,3,2],f32>
  return %17 : !torch.vtensor<[1,2,3,2],f32>
}
// CHECK-LABEL: def main(
// CHECK: R.permute_dims(w0, axes=[1, 0])
// CHECK: R.permute_dims(w2, axes=[1, 0])
// CHECK: R.permute_dims(w4, axes=[1, 0])
// CHECK: R.concat((lv, lv1, lv2), axis=1)
// CHECK: R.matmul(arg0, lv3
// CHECK: R.concat((w1, w3, w5), axis=0)
// CHECK: R.add(lv4, lv5)
// CHECK: R.split(lv6, indices_or_sections=[4, 8], axis=-1)
// CHECK: R.reshape(lv2_1, R.shape([1, 3, 2, 2]))
// CHECK: R.permute_dims(lv3_1, axes=[0, 2, 1, 3])
// CHECK: R.reshape(lv7_1, R.shape([1, 3, 2, 2]))
// CHECK: R.permute_dims(lv8, axes=[0, 2, 1, 3])
// CHECK: R.reshape(lv12, R.shape([1, 3, 2, 2]))
// CHECK: R.permute_dims(lv13, axes=[0, 2, 1, 3])
// CHECK: R.permute_dims(lv9, axes=[0, 1, 3, 2])
// CHECK: R.matmul(lv4_1, lv15
// CHECK: R.multiply(lv16, R.const(0.70710676908493042, "float32"))
// CHECK: R.nn.softmax(lv17, axis=3)
// CHECK: R.matmul(lv18, lv14

{-#
  dialect_resources: {
    builtin: {
      q.weight: "0x100000004A5FFDBE0011A6BE38A67F3E1853D63D96B3C7BEE86893BEF2D4F03E547FAC3EB03E5FBED4DC00BE78DDF3BE803E13BC78C8C0BEA277C5BE20B0E1BCA0BF993D",
      q.bias: "0x10000000F4AD51BE98E7973E38C99BBE6849E83E",
      k.weight: "0x10000000D06FAF3E64E1D7BE88DBFEBD80D2B83C1867953DD0DDF23D5CEC483EE059F53CCCD179BED445723E5691F5BEA0BB97BE3C2B00BEEC6679BE5C1D33BEBAD2D1BE",
      k.bias: "0x1000000000D2D9BDF8E2DA3D76C6A6BE4034D2BC",
      v.weight: "0x100000000042B73EF08852BD80AC633CC0AD30BD103DCF3D60C6A23EBA7EF23E0693A23EC40CF33E601D14BD66F8E5BE40BA72BECE4FAE3E006B54BBDC7C7EBE022DC4BE",
      v.bias: "0x100000000094EFBEEC10D8BE70B4CFBD56648C3E"
    }
  }
#-}
