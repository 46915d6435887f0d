// RUN: torch-tvm-opt %s --recompose-products --eliminate-dead | filecheck %s

// A vector times a matrix as one row, batches of matrices times a vector, and a batch that was broadcast.
func.func @main(%v: !torch.vtensor<[5],f32>, %m: !torch.vtensor<[5,3],f32>, %b: !torch.vtensor<[2,4,5],f32>, %t: !torch.vtensor<[2,5,4],f32>, %a: !torch.vtensor<[3,5],f32>) -> (!torch.vtensor<[3],f32>, !torch.vtensor<[2,4],f32>, !torch.vtensor<[2,4],f32>, !torch.vtensor<[2,3,4],f32>) {
  %int0 = torch.constant.int 0
  %int1 = torch.constant.int 1
  %int2 = torch.constant.int 2
  %int3 = torch.constant.int 3
  %int4 = torch.constant.int 4
  %int5 = torch.constant.int 5
  %int8 = torch.constant.int 8
  %false = torch.constant.bool false
  %0 = torch.aten.unsqueeze %v, %int0 : !torch.vtensor<[5],f32>, !torch.int -> !torch.vtensor<[1,5],f32>
  %1 = torch.aten.mm %0, %m : !torch.vtensor<[1,5],f32>, !torch.vtensor<[5,3],f32> -> !torch.vtensor<[1,3],f32>
  %2 = torch.aten.squeeze.dim %1, %int0 : !torch.vtensor<[1,3],f32>, !torch.int -> !torch.vtensor<[3],f32>
  %flat = torch.prim.ListConstruct %int8, %int5 : (!torch.int, !torch.int) -> !torch.list<int>
  %back = torch.prim.ListConstruct %int2, %int4 : (!torch.int, !torch.int) -> !torch.list<int>
  %3 = torch.aten.view %b, %flat : !torch.vtensor<[2,4,5],f32>, !torch.list<int> -> !torch.vtensor<[8,5],f32>
  %4 = torch.aten.mv %3, %v : !torch.vtensor<[8,5],f32>, !torch.vtensor<[5],f32> -> !torch.vtensor<[8],f32>
  %5 = torch.aten.view %4, %back : !torch.vtensor<[8],f32>, !torch.list<int> -> !torch.vtensor<[2,4],f32>
  %order = torch.prim.ListConstruct %int0, %int2, %int1 : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %6 = torch.aten.permute %t, %order : !torch.vtensor<[2,5,4],f32>, !torch.list<int> -> !torch.vtensor<[2,4,5],f32>
  %7 = torch.aten.view %6, %flat : !torch.vtensor<[2,4,5],f32>, !torch.list<int> -> !torch.vtensor<[8,5],f32>
  %8 = torch.aten.mv %7, %v : !torch.vtensor<[8,5],f32>, !torch.vtensor<[5],f32> -> !torch.vtensor<[8],f32>
  %9 = torch.aten.view %8, %back : !torch.vtensor<[8],f32>, !torch.list<int> -> !torch.vtensor<[2,4],f32>
  %wide = torch.prim.ListConstruct %int2, %int3, %int5 : (!torch.int, !torch.int, !torch.int) -> !torch.list<int>
  %10 = torch.aten.expand %a, %wide, %false : !torch.vtensor<[3,5],f32>, !torch.list<int>, !torch.bool -> !torch.vtensor<[2,3,5],f32>
  %11 = torch.aten.bmm %10, %t : !torch.vtensor<[2,3,5],f32>, !torch.vtensor<[2,5,4],f32> -> !torch.vtensor<[2,3,4],f32>
  return %2, %5, %9, %11 : !torch.vtensor<[3],f32>, !torch.vtensor<[2,4],f32>, !torch.vtensor<[2,4],f32>, !torch.vtensor<[2,3,4],f32>
}
// CHECK-LABEL: func.func @main
// CHECK:     %[[ROW:.*]] = torch.aten.matmul %arg0, %arg1 :
// CHECK:     %[[BATCH:.*]] = torch.aten.matmul %arg2, %arg0 :
// CHECK:     %[[LEFT:.*]] = torch.aten.matmul %arg0, %arg3 :
// CHECK:     %[[WIDE:.*]] = torch.aten.matmul %arg4, %arg3 :
// CHECK:     return %[[ROW]], %[[BATCH]], %[[LEFT]], %[[WIDE]]
