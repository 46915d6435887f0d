// RUN: torch-tvm-opt %s --torch-to-relax --legalize-ops --view-reshapes --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[2,3],f32>) -> !torch.vtensor<[6],f32> {
  %int6 = torch.constant.int 6
  %0 = torch.prim.ListConstruct %int6 : (!torch.int) -> !torch.list<int>
  %1 = torch.aten.view %arg0, %0 : !torch.vtensor<[2,3],f32>, !torch.list<int> -> !torch.vtensor<[6],f32>
  %2 = torch.aten.relu %1 : !torch.vtensor<[6],f32> -> !torch.vtensor<[6],f32>
  return %2 : !torch.vtensor<[6],f32>
}
// CHECK-NOT: cls.reshape
// CHECK-LABEL: def main(
// CHECK: R.reshape(arg0, R.shape([6]))
// CHECK: R.call_tir(cls.aten_relu, (lv,)
