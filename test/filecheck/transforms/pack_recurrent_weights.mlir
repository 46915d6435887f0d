// RUN: torch-tvm-opt %s --torch-to-relax --pack-recurrent-weights --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[3,1,2],f32>) -> !torch.vtensor<[3,1,2],f32> {
  %0 = torch.vtensor.literal(dense_resource<folded_5> : tensor<1x1x2xf32>) : !torch.vtensor<[1,1,2],f32>
  %1 = torch.vtensor.literal(dense_resource<folded> : tensor<1x1x2xf32>) : !torch.vtensor<[1,1,2],f32>
  %2 = torch.vtensor.literal(dense_resource<l.weight_ih_l0> : tensor<8x2xf32>) : !torch.vtensor<[8,2],f32>
  %3 = torch.vtensor.literal(dense_resource<l.weight_hh_l0> : tensor<8x2xf32>) : !torch.vtensor<[8,2],f32>
  %4 = torch.vtensor.literal(dense_resource<l.bias_ih_l0> : tensor<8xf32>) : !torch.vtensor<[8],f32>
  %5 = torch.vtensor.literal(dense_resource<l.bias_hh_l0> : tensor<8xf32>) : !torch.vtensor<[8],f32>
  %true = torch.constant.bool true
  %int1 = torch.constant.int 1
  %float0.000000e00 = torch.constant.float 0.000000e+00
  %false = torch.constant.bool false
  %6 = torch.prim.ListConstruct %0, %1 : (!torch.vtensor<[1,1,2],f32>, !torch.vtensor<[1,1,2],f32>) -> !torch.list<vtensor<[1,1,2],f32>>
  %7 = torch.prim.ListConstruct %2, %3, %4, %5 : (!torch.vtensor<[8,2],f32>, !torch.vtensor<[8,2],f32>, !torch.vtensor<[8],f32>, !torch.vtensor<[8],f32>) -> !torch.list<vtensor>
  %8:3 = torch.operator "torch.aten.lstm.input"(%arg0, %6, %7, %true, %int1, %float0.000000e00, %false, %false, %false) : (!torch.vtensor<[3,1,2],f32>, !torch.list<vtensor<[1,1,2],f32>>, !torch.list<vtensor>, !torch.bool, !torch.int, !torch.float, !torch.bool, !torch.bool, !torch.bool) -> (!torch.vtensor<[3,1,2],f32>, !torch.vtensor<[1,1,2],f32>, !torch.vtensor<[1,1,2],f32>) 
  return %8#0 : !torch.vtensor<[3,1,2],f32>
}
// CHECK-NOT: cls.lstm,
// CHECK-LABEL: def main(
// CHECK: R.permute_dims(w2, axes=[1, 0])
// CHECK: R.matmul(arg0, lv
// CHECK: R.add(w4, w5)
// CHECK: R.add(lv1, lv2)
// CHECK: R.expand_dims(w3, axis=[0])
// CHECK: R.call_tir(cls.pack_weight, (lv4,)
// CHECK: R.call_tir(cls.lstm_packed, (lv3, w0, w1, lv_1)

{-#
  dialect_resources: {
    builtin: {
      folded_5: "0x100000000000000000000000",
      folded: "0x100000000000000000000000",
      l.weight_ih_l0: "0x10000000350216BF8FA91BBF2F96343F7BD1E53EDB40FABE1CA58D3E2FB3083F1AF3343F4A481E3FD43E0C3F5E0026BEE11B7EBE2FA0143F0CE1CA3E05DED9BE50BD223F",
      l.weight_hh_l0: "0x100000000EECAE3E315CC53ED2EAE2BED6BC4F3E96D57DBECE700D3F784A02BE39F28C3EA99C003E33099A3EB90F76BE0A85B03E9DDFFCBE5789233ED2F3F4BE169532BF",
      l.bias_ih_l0: "0x100000005E5E11BFCBE80E3F36E0C33ECFD5293FB804113F93A821BF0311F7BE20FFE9BD",
      l.bias_hh_l0: "0x100000009E1EEBBEFC65FB3E1EDA08BFA2A3B0BE98E12EBFBD8BCDBE63E2143F1E36143F"
    }
  }
#-}
