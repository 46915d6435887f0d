// RUN: torch-tvm-opt %s --torch-to-relax --legalize-ops --name-results-apart --target=cascadelake | filecheck %s

func.func @main(%arg0: !torch.vtensor<[2,3],f32>) -> !torch.vtensor<[6],f32> {
  %int6 = torch.constant.int 6
  %0 = torch.aten.relu %arg0 : !torch.vtensor<[2,3],f32> -> !torch.vtensor<[2,3],f32>
  %1 = torch.prim.ListConstruct %int6 : (!torch.int) -> !torch.list<int>
  %2 = torch.aten.view %0, %1 : !torch.vtensor<[2,3],f32>, !torch.list<int> -> !torch.vtensor<[6],f32>
  return %2 : !torch.vtensor<[6],f32>
}
// CHECK-LABEL: def main(
// CHECK: R.call_tir(cls.aten_relu, (arg0,)
// CHECK: R.call_tir(cls.reshape, (lv,)
