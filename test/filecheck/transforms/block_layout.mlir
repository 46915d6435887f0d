// RUN: torch-tvm-opt %s --torch-to-relax --block-layout=accuracy=strict --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[1,2,3,3],f32>) -> !torch.vtensor<[1,2,3,3],f32> {
  %int1 = torch.constant.int 1
  %int0 = torch.constant.int 0
  %0 = torch.vtensor.literal(dense_resource<"0.weight"> : tensor<2x2x1x1xf32>) : !torch.vtensor<[2,2,1,1],f32>
  %1 = torch.vtensor.literal(dense_resource<"0.bias"> : tensor<2xf32>) : !torch.vtensor<[2],f32>
  %2 = torch.prim.ListConstruct %int1, %int1 : (!torch.int, !torch.int) -> !torch.list<int>
  %3 = torch.prim.ListConstruct %int0, %int0 : (!torch.int, !torch.int) -> !torch.list<int>
  %4 = torch.aten.conv2d %arg0, %0, %1, %2, %3, %2, %int1 : !torch.vtensor<[1,2,3,3],f32>, !torch.vtensor<[2,2,1,1],f32>, !torch.vtensor<[2],f32>, !torch.list<int>, !torch.list<int>, !torch.list<int>, !torch.int -> !torch.vtensor<[1,2,3,3],f32>
  %5 = torch.aten.relu %4 : !torch.vtensor<[1,2,3,3],f32> -> !torch.vtensor<[1,2,3,3],f32>
  return %5 : !torch.vtensor<[1,2,3,3],f32>
}
// CHECK-LABEL: def main(
// CHECK: R.call_tir(cls.pack_weight, (w0,)
// CHECK: R.call_tir(cls.direct_conv, (arg0, lv)
// CHECK: R.reshape(w1, R.shape([1, 2, 1, 1]))
// CHECK: R.call_tir(cls.pack_channels, (lv1_1,)
// CHECK: R.add(lv1, lv2)
// CHECK: R.call_tir(cls.aten_relu1, (lv3,)
// CHECK: R.call_tir(cls.unpack_channels, (lv4,)

{-#
  dialect_resources: {
    builtin: {
      "0.weight": "0x10000000F2BDF23E522BD5BE70ED063E65580CBF",
      "0.bias": "0x100000008AECFABEF205BBBE"
    }
  }
#-}
