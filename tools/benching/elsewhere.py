"""Figures that one run of `make bench` cannot give: other processors, and what else may compute. All by hand."""

from __future__ import annotations

from tools.benching.page import Part

TWO_KINDS = Part(
    "Other kinds of processors, by hand",
    "A: AMD EPYC with AVX-512-VNNI, runs of 7, 15 and 20 rounds, 10 with one thread, while other machines on its host "
    "made single rounds up to three times slower; B: AMD EPYC with AVX2 only, 11 rounds, 3 with one thread; C: Intel "
    "Xeon with VNNI, its AMX hidden; D: the same, VNNI and AVX-512 hidden too; 2 cores each, onnxruntime 1.32",
    ["width 64, first family, processor time to the plain export", "A: VNNI", "B: AVX2", "C: VNNI", "D: AVX2"],
    [
        ["weights", "trained", "trained", "random", "random"],
        [
            "fp32 exact",
            "0.938, 0.902 (0.640 to 1.426)",
            "0.931 (0.879 to 1.118)",
            "0.917 (0.916 to 1.003)",
            "0.995 (0.869 to 1.037)",
        ],
        [
            "int8 exact",
            "0.232, 0.232, 0.236 (0.110 to 0.412)",
            "0.449 (0.417 to 0.583)",
            "0.244 (0.220 to 0.290)",
            "0.493 (0.483 to 0.571)",
        ],
        ["- by the clock", "0.248, 0.249, 0.249 (0.116 to 0.422)", "-", "-", "-"],
        ["- one thread", "0.219 (0.199 to 0.275)", "0.422 (0.386 to 0.434)", "-", "-"],
    ],
    "A gave 0.259 (0.207 to 0.489) with random weights, when it was slower still. C and D were measured before patches "
    "of INT8 files shared columns, which leaves out 6% of the multiplications. INT8 pays by what the processor has for "
    "8 bits: without VNNI a multiplication of bytes takes three instructions.",
)

SAME_RESULTS = Part(
    "The same results on other processors, by hand",
    "trained files of pcb_unet16, exported on an AMD EPYC with AVX-512-VNNI; the others emulated by qemu-user 7.2, "
    "onnxruntime 1.32",
    ["processor", "fp32: golden strip off by (allowed 0.001)", "int8: off by (allowed 0.05)"],
    [
        ["AVX-512-VNNI", "0.000110", "0.013686"],
        ["AVX2 only (`qemu-x86_64 -cpu Haswell`)", "0.000111", "0.013991"],
        ["Arm with dot product (`tools/try_arm64.sh`)", "0.000111", "0.013686"],
        ["Arm without (`CPU=cortex-a72 tools/try_arm64.sh`)", "not tried", "0.013686"],
    ],
    "The largest difference of any pixel from what the file expects, which is computed in double precision. How fast "
    "an Arm is has never been measured: an emulator does not tell.",
)
OPENVINO = Part(
    "OpenVINO against onnxruntime, by hand",
    "AMD EPYC, 2 cores with AVX-512-VNNI, other programs beside it (load 9); openvino 2026.4.1, onnxruntime 1.32; "
    "2 threads, each file's runs in turn (7, of the 64-wide ones 3), medians",
    ["file", "processor time, OpenVINO to cpu", "largest difference between both", "golden strip"],
    [
        ["fp32 exact, first family, width 16, trained", "1.00", "below 5e-6", "reproduced"],
        ["fp32 exact, second family, width 16, trained", "1.00", "below 5e-6", "reproduced"],
        ["fp32 exact, first family, width 64, random weights", "0.86", "2e-5", "-"],
        ["int8 exact, first family, width 16, trained", "1.77", "0.13", "missed: 0.070 of 0.05"],
        ["int8 exact, second family, width 16, trained", "1.26", "0.017", "reproduced: 0.011"],
        ["int8 exact, first family, width 64, random weights", "1.06", "0.51", "-"],
    ],
    "So `inference.provider: auto` leaves it alone. `onnxruntime-openvino` 1.24.1 and `onnxruntime-ep-openvino` 1.8.1 "
    "load none of these files (decision 020); with the former the plain export took 1.13 of the cpu's processor time. "
    "The worker of a 16-wide fp32 file has 193 MiB instead of 139; 12 real strips got the same verdicts, and scores "
    "within 6e-7.",
)


def by_hand(*, kinds_measured: bool) -> list[Part]:
    """Give these tables, without the kinds of processors where this machine could be measured as several."""
    return [*([] if kinds_measured else [TWO_KINDS]), SAME_RESULTS, OPENVINO]
