// RUN: torch-tvm-opt %s --recompose-products | filecheck %s

func.func @main(%x: !torch.vtensor<[2,17,64],f32>, %w: !torch.vtensor<[8,64],f32>, %b: !torch.vtensor<[8],f32>) -> !torch.vtensor<[2,17,8],f32> {
  %int-1 = torch.constant.int -1
  %int2 = torch.constant.int 2
  %int8 = torch.constant.int 8
  %int17 = torch.constant.int 17
  %int64 = torch.constant.int 64
  %0 = torch.prim.ListConstruct %int-1, %int64 : (!torch.int, !torch.int) -> !torch.list<int>
  %1 = torch.aten.view %x, %0 : !torch.vtensor<[2,17,64],f32>, !torch.list<int> -> !torch.vtensor<[34,64],f32>
  %2 = torch.aten.linear %1, %w, %b : !torch.vtensor<[34,64],f32>, !torch.vtensor<[8,64],f32>, !torch.vtensor<[8],f32> -> !torch.vtensor<[34,8],f32>
  %3 = torch.prim.ListConstruct %int2, %int17, %int8 : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %4 = torch.aten.view %2, %3 : !torch.vtensor<[34,8],f32>, !torch.list<int> -> !torch.vtensor<[2,17,8],f32>
  return %4 : !torch.vtensor<[2,17,8],f32>
}
// CHECK-LABEL: func.func @main(%arg0
// CHECK:         %[[Y:.*]] = torch.aten.linear %arg0, %arg1, %arg2 : {{.*}} -> !torch.vtensor<[2,17,8],f32>
// CHECK:         return %[[Y]]
