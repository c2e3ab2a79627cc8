"""What the benchmark says of a device's kernels: their kind, their share, and how long none of them ran."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest


@pytest.fixture(scope="module")
def kernels() -> Iterator[ModuleType]:
    folder = str(Path(__file__).parents[2] / "benchmarks")
    sys.path.insert(0, folder)
    from gpu import kernels

    yield kernels
    sys.path.remove(folder)
    for name in [name for name in sys.modules if name.partition(".")[0] == "gpu"]:
        del sys.modules[name]


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("Memcpy DtoD (Device -> Device)", "memcpy"),
        (
            "void at::native::(anonymous namespace)::multi_tensor_apply_kernel<FusedAdamMathFunctor<float, 4>>",
            "optimizer",
        ),
        ("void at::native::multi_tensor_apply_kernel<at::native::LpNormFunctor<float>>", "optimizer"),
        ("void (anonymous namespace)::softmax_warp_forward<float, float, float, 8, false>", "attention"),
        ("fmha_cutlassF_bf16_aligned_64x64_rf_sm80", "attention"),
        ("void at::native::avg_pool2d_out_cuda_frame<float, float, int>", "pooling"),
        ("sm90_xmma_wgrad_implicit_gemm_indexed_bf16", "convolution"),
        ("nvjet_sm90_tst_128x256_64x4_2x1_v_bz_coopA_NNT", "matmul"),
        ("cutlass_80_tensorop_bf16_s16816gemm_relu_bf16", "matmul"),
        ("void at::native::vectorized_layer_norm_kernel<float, float>", "norm"),
        ("void at::native::GammaBetaBackwardCUDAKernelTemplate<float, float>", "norm"),
        ("void at::native::elementwise_kernel<128, 4, direct_copy_kernel_cuda>", "layout copies"),
        ("void roll_cuda_kernel<c10::BFloat16>", "layout copies"),
        ("void at::native::reduce_kernel<512, 1, ReduceOp<float, NormTwoOps<float>>>", "reduction"),
        ("void at::native::vectorized_elementwise_kernel<4, CUDAFunctor_add<float>>", "elementwise"),
        ("triton_poi_fused_add_gelu_3", "elementwise"),
        ("triton_per_fused_native_layer_norm_2", "norm"),
        ("something else", "other"),
    ],
)
def test_the_kind_of_a_kernel(kernels: ModuleType, name: str, kind: str) -> None:
    assert kernels.kind_of(name) == kind


def test_shares_and_the_time_in_which_none_runs(kernels: ModuleType) -> None:
    ran = tuple(
        kernels.Kernel(name, start, end)
        for name, start, end in (("gemm", 10, 40), ("memcpy", 30, 50), ("gemm", 70, 80), ("add_elementwise", 75, 78))
    )
    seen = kernels.Profile(2, 100.0, ran)
    assert seen.busy == pytest.approx(0.5)  # 10 to 50 and 70 to 80
    assert seen.shares() == pytest.approx({"matmul": 40 / 63, "memcpy": 20 / 63, "elementwise": 3 / 63})
    assert list(seen.shares()) == ["matmul", "memcpy", "elementwise"]
    assert seen.longest(1) == [("gemm", pytest.approx(40 / 63), 1.0)]
    assert seen.figures()["kernels a step"] == 2
