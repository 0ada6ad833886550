"""Compiles training steps and detection for an H100 on a machine without a GPU, and prints what came out.

XLA compiles for a described device: kernels down to sm_90a machine code, layouts, memory. Nothing runs, no
driver and no CUDA toolkit is needed, only the wheels of the extra `cuda12` (about 6 GB on disk), best in an
environment of their own:

    pip install -e '.[cuda12]'

In the root of the checkout, with that environment's python; about a minute a program on a free core:

    python benchmarks/gpu_compile.py configs/nuclei_r50_c4.py configs/nuclei_r50_fpn.py
    python benchmarks/gpu_compile.py configs/nuclei_r101_c4.py --tasks train --ground_truths 600 --top 15
    python benchmarks/gpu_compile.py configs/synthetic_tiny.py --batch 1 --side 128     # a minute, to try it

A config may also be `c4` or `fpn`: the plain R50s `MaskRCNNConfig.c4` and `.resnet_fpn`. The last lines of
each program (`--top`) are its kernels by time at the roofline, with the package's line that they come from.

How to read it:
  temp GiB      XLA's buffers beside arguments and results. cuDNN's and cuBLAS's larger workspaces, which only
                autotuning on a device can choose, are not in it.
  GB            operands read plus results written, each once a kernel. Caches make it less.
  bound         sum over kernels of the longer of FLOP / peak and bytes / bandwidth: no step is faster unless
                kernels are fused differently. Loops whose turns depend on data (`?`) count one turn;
                a gather reads each cell once, and arithmetic outside of products counts nothing.
  f32           matrix products and convolutions in float32; the rest is in the config's type.
Without a device there is no autotuning: matrix products go to cuBLAS (Triton's untuned tiles fail on some),
and sorts to XLA's own kernels.
"""

import argparse
import collections
import dataclasses
import math
import os
import re
import sys
import time
from importlib import util
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"  # the plugin is there to compile, not to run
os.environ["XLA_FLAGS"] = " ".join(
    [
        "--xla_gpu_enable_triton_gemm=false",
        "--xla_gpu_enable_cub_radix_sort=false",  # asks a device for its scratch memory
        # Nothing runs, and what is read here is settled before machine code is made of it.
        "--xla_backend_optimization_level=0",
        "--xla_gpu_disable_gpuasm_optimizations=true",
        os.environ.get("XLA_FLAGS", ""),
    ]
)
sys.path.insert(0, str(Path.cwd()))

import jax
import jax.numpy as jnp
from jax.experimental import topologies

from maskrcnn_jax import Batch, MaskRCNN, MaskRCNNConfig
from maskrcnn_jax.models.parameters import param_shapes
from maskrcnn_jax.training.optimizer import make_optimizer
from maskrcnn_jax.training.schedule import warmup_steps_decay
from maskrcnn_jax.training.step import create_state, make_train_step

H100 = """
gpu_device_info {
  cuda_compute_capability { major: 9 feature_extension: ACCELERATED_FEATURES }
  core_count: 132 fpus_per_core: 128 clock_rate_ghz: 1.98 threads_per_warp: 32
  device_memory_size: 84942979072 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  threads_per_block_limit: 1024 threads_per_core_limit: 2048
  shared_memory_per_block: 49152 shared_memory_per_core: 233472 shared_memory_per_block_optin: 232448
  registers_per_core_limit: 65536 registers_per_block_limit: 65536
  block_dim_limit_x: 2147483647 block_dim_limit_y: 65535 block_dim_limit_z: 65535
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 }
runtime_version { major: 12 minor: 9 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
BANDWIDTH = 3.0e12  # bytes/s, of a measured H100, as are the dense FLOP/s
PEAK = {"bf16": 790e12, "f32": 395e12, "f32 exact": 60e12}  # float32 is TF32 unless more is asked for


def lower(arguments, config: str, task: str) -> jax.stages.Lowered:
    """The traced program of a config, with all its arrays on one described device."""
    values, model_config = load(config, dtype=arguments.dtype, remat=arguments.remat)
    topology = topologies.get_topology_desc("h100", platform="cuda", target_config=H100, topology="1x1x1")
    sharding = jax.sharding.SingleDeviceSharding(topology.devices[0])
    model, params = MaskRCNN(model_config), param_shapes(model_config)
    B, S, G = arguments.batch, arguments.side, arguments.ground_truths

    def array(dtype, *shape):
        return jax.ShapeDtypeStruct((B, *shape), dtype)

    images, sizes = array(jnp.uint8, S, S, 3), array(jnp.int32, 2)
    if task == "detect":

        def detect(params, images, sizes):
            return model.apply({"params": params}, images, sizes, method="detect")

        function, inputs = jax.jit(detect), (params, images, sizes)
    else:
        optimizer = make_optimizer(
            model_config, warmup_steps_decay(**values["schedule"]), **values["optimizer"]
        )
        batch = Batch(
            images=images,
            sizes=sizes,
            boxes=array(jnp.float32, G, 4),
            classes=array(jnp.int32, G),
            valid=array(jnp.bool, G),
            crowd=array(jnp.bool, G),
            layers=array(jnp.int32, G),
            instance_map=array(jnp.uint16, 1, S, S),
            index=array(jnp.int32),
            cut=array(jnp.int32),
        )
        state = jax.eval_shape(lambda params: create_state(params, optimizer), params)
        key = jax.eval_shape(lambda: jax.random.key(0))
        function, inputs = make_train_step(model, optimizer), (state, batch, key)

    def place(leaf):
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return function.lower(*jax.tree.map(place, inputs))


def load(config: str, **changes) -> tuple[dict, MaskRCNNConfig]:
    """Schedule and optimiser, and the model's config with `changes`."""
    if config in ("c4", "fpn"):
        model = MaskRCNNConfig.c4(50) if config == "c4" else MaskRCNNConfig.resnet_fpn(50)
        values = {"schedule": {"base": 1e-4, "warmup": 0, "milestones": ()}, "optimizer": {}}
    else:
        spec = util.spec_from_file_location(Path(config).stem, config)
        module = util.module_from_spec(spec)
        spec.loader.exec_module(module)
        values = module.get_config().to_dict()
        model = MaskRCNNConfig.from_dict(values["model"])
    return values, dataclasses.replace(model, **changes)


# --- XLA's text of a compiled program ---------------------------------------------------------------------

SIZES = {"pred": 1, "s8": 1, "u8": 1, "s16": 2, "u16": 2, "bf16": 2, "f16": 2, "s64": 8, "u64": 8, "f64": 8}
FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all", "opt-barrier"}


class Op:
    """One instruction: name, code, result arrays as (type, shape), operands' names, attributes as text."""

    LINE = re.compile(r"^\s+(ROOT )?%([\w.\-]+) = (\(.*?\)|\S+) ([a-z][\w\-]*)\((.*?)\)(,.*)?$")

    def __init__(self, match: re.Match):
        self.root, self.name, shape, self.code, operands, self.attributes = (g or "" for g in match.groups())
        arrays = re.findall(r"\b([a-z]+\d*)\[([\d,]*)\]", re.sub(r"/\*.*?\*/", "", shape))
        self.arrays = [(kind, tuple(map(int, dims.split(","))) if dims else ()) for kind, dims in arrays]
        self.operands = re.findall(r"%([\w.\-]+)", operands)

    @property
    def bytes(self) -> int:
        return sum(SIZES.get(kind, 4) * math.prod(shape) for kind, shape in self.arrays)

    def find(self, pattern: str) -> str:
        match = re.search(pattern, self.attributes)
        return match[1] if match else ""

    def called(self, attribute: str) -> str:
        return self.find(rf"\b{attribute}=%([\w.\-]+)")


@dataclasses.dataclass
class Kernel:
    """What is launched: its kind and cost in one turn, and the turns of the loops around it."""

    op: Op
    kind: str
    flops: int
    bytes: int
    dtype: str
    turns: int
    loop: str
    line: str

    @property
    def seconds(self) -> float:
        return self.turns * max(self.flops / PEAK.get(self.dtype, PEAK["bf16"]), self.bytes / BANDWIDTH)


class Program:
    """The kernels of a compiled program, in order, and its loops with their turns (0: depends on data)."""

    def __init__(self, text: str):
        self.computations, self.kernels, self.loops = {}, [], {}
        self._lines = package_lines(text)
        for line in text.splitlines():
            if head := re.match(r"^(ENTRY )?%([\w.\-]+) \(.*\{$", line):
                current = self.computations[head[2]] = {}
                entry = head[2]  # the last one is where it starts
            elif match := Op.LINE.match(line):
                current[match[2]] = Op(match)
        self._walk(entry, 1, "")

    def _walk(self, name: str, turns: int, loop: str) -> None:
        scope = self.computations[name]
        for op in scope.values():
            line = self._lines.get(op.find(r"stack_frame_id=(\d+)"), "")
            if op.code == "while":
                count = int(op.find(r'"known_trip_count":{"n":"(\d+)"') or 0)
                self.loops[op.name] = (count, line)
                self._walk(op.called("body"), turns * (count or 1), op.name)
            elif op.code == "conditional":
                for branch in re.findall(r"%([\w.\-]+)", op.find(r"branch_computations={([^}]*)}")):
                    self._walk(branch, turns, loop)
            elif op.code == "call":
                self._walk(op.called("to_apply"), turns, loop)
            elif op.code not in FREE:
                self.kernels.append(Kernel(op, *self._cost(op, scope), turns, loop, line))

    def _cost(self, op: Op, scope: dict[str, Op]) -> tuple[str, int, int, str]:
        """Kind, FLOPs (of products and convolutions), bytes, and the type that it computes in."""
        dtype = scope[op.operands[0]].arrays[0][0] if op.operands and scope[op.operands[0]].arrays else ""
        if dtype == "f32" and "highest" in op.attributes.lower():
            dtype = "f32 exact"
        read = sum(scope[name].bytes for name in op.operands)
        if op.code == "fusion":
            return self._fusion_cost(op)
        target = op.find(r'custom_call_target="([^"]+)"')
        if "matmul" in target or "gemm" in target:
            shape = scope[op.operands[0]].arrays[0][1]
            axes = re.findall(r"\d+", op.find(r'"lhs_contracting_dimensions":\[([^\]]*)\]'))
            depth = math.prod(shape[int(axis)] for axis in axes)
            return "gemm", 2 * depth * math.prod(op.arrays[0][1]), read + first_bytes(op), dtype
        if "conv" in target:
            return "conv", convolution_flops(op, scope, target), read + first_bytes(op), dtype
        return target or op.code, 0, read + op.bytes, ""

    def _fusion_cost(self, op: Op) -> tuple[str, int, int, str]:
        inner = self.computations[op.called("calls")]
        users = collections.defaultdict(list)
        for part in inner.values():
            for name in part.operands:
                users[name].append(part)
        total = 0
        for part in inner.values():
            if part.code == "parameter":
                total += read_bytes(part, users)
        root = next(part for part in inner.values() if part.root)
        for part in [inner[name] for name in root.operands] if root.code == "tuple" else [root]:
            while part.code == "bitcast":
                part = inner[part.operands[0]]
            updated = {"dynamic-update-slice": 1, "scatter": 2}.get(part.code)  # in place
            total += 2 * inner[part.operands[updated]].bytes if updated else part.bytes
        codes = {part.code for part in inner.values()}
        kind = next((code for code in ("scatter", "sort") if code in codes), "fusion")
        return "transpose" if "transpose" in op.name else kind, 0, total, ""


def read_bytes(part: Op, users: dict[str, list[Op]]) -> int:
    """What a fusion reads of one parameter: less than all where it only takes slices or writes into it."""
    total = 0
    for user in users[part.name]:
        if user.code == "bitcast":
            total += read_bytes(user, users)
        elif user.operands[0] == part.name and user.code in ("slice", "dynamic-slice", "gather"):
            total += user.bytes
        elif not (user.operands[0] == part.name and user.code in ("dynamic-update-slice", "scatter")):
            total += part.bytes
    return min(total, part.bytes)


def first_bytes(op: Op) -> int:
    """Bytes of a call's result without its workspace."""
    kind, shape = op.arrays[0]
    return SIZES.get(kind, 4) * math.prod(shape)


def convolution_flops(op: Op, scope: dict[str, Op], target: str) -> int:
    result, first, second = (
        x.arrays[0][1] for x in (op, scope[op.operands[0]], scope[op.operands[1]])
    )  # fmt: skip
    output, kernel = result, second
    if "BackwardInput" in target:
        output = first
    elif "BackwardFilter" in target:
        output, kernel = second, result
    channels = kernel[op.find(r"dim_labels=\w+_(\w+)->").index("o")]
    return 2 * math.prod(output) * math.prod(kernel) // channels


def package_lines(text: str) -> dict[str, str]:
    """The innermost line of maskrcnn_jax by the number of a stack frame."""
    tables = {name: {} for name in ("FileNames", "FileLocations", "StackFrames")}
    table = None
    for line in text.splitlines():
        if re.fullmatch(r"[A-Z]\w+", line):
            table = tables.get(line)
        elif line.startswith(("%", "ENTRY")):
            break
        elif table is not None and (match := re.match(r"^(\d+) (.*)$", line)):
            table[match[1]] = match[2].strip('"')

    def line_of(frame: str) -> str:
        while frame in tables["StackFrames"]:
            location, parent = re.findall(r"=(\d+)", tables["StackFrames"][frame])[:2]
            file, number = re.search(
                r"file_name_id=(\d+).* line=(\d+)", tables["FileLocations"][location]
            ).groups()
            if "maskrcnn_jax/" in tables["FileNames"][file]:
                return tables["FileNames"][file].rsplit("maskrcnn_jax/", 1)[1] + ":" + number
            if parent == frame:
                break
            frame = parent
        return ""

    return {frame: line_of(frame) for frame in tables["StackFrames"]}


# --- Tables -------------------------------------------------------------------------------------------------

COLUMNS = (
    "program", "compile s", "temp GiB", "arguments GiB", "TFLOP", "GB", "bound ms", "images/s", "kernels",
    "convs", "gemms", "f32", "whiles", "sorts", "scatters", "transposes, copies (GB)",
)  # fmt: skip


def row(name: str, seconds: float, compiled: jax.stages.Compiled, program: Program, batch: int) -> list[str]:
    memory, kernels = compiled.memory_analysis(), program.kernels

    def count(*kinds):
        return sum(k.op.code in kinds or k.kind in kinds for k in kernels)

    bound = sum(k.seconds for k in kernels)
    products = [k for k in kernels if k.flops]
    moved = [k for k in kernels if k.kind in ("transpose", "copy")]
    return [
        name,
        f"{seconds:.0f}",
        f"{memory.temp_size_in_bytes / 2**30:.2f}",
        f"{memory.argument_size_in_bytes / 2**30:.2f}",
        f"{sum(k.turns * k.flops for k in kernels) / 1e12:.2f}",
        f"{sum(k.turns * k.bytes for k in kernels) / 1e9:.1f}",
        f"{bound * 1e3:.1f}",
        f"{batch / bound:.0f}",
        *map(str, (len(kernels), count("conv"), count("gemm"))),
        str(sum(k.dtype.startswith("f32") for k in products)),
        f"{len(program.loops)} ({sum(not turns for turns, _ in program.loops.values())} ?)",
        *map(str, (count("sort"), count("scatter"))),
        f"{len(moved)} ({sum(k.turns * k.bytes for k in moved) / 1e9:.1f})",
    ]


def details(program: Program, top: int) -> None:
    """Loops and one turn of them, then the slowest kernels at the roofline."""
    for name, (turns, line) in program.loops.items():
        inside = [k for k in program.kernels if k.loop == name]
        seconds = sum(k.seconds / k.turns for k in inside)
        print(f"  loop {turns or '?'} x {len(inside)} kernels, {seconds * 1e6:.0f} us a turn, {line}")
    for k in sorted(program.kernels, key=lambda k: -k.seconds)[:top]:
        arrays = " ".join(kind + str(list(shape)).replace(" ", "") for kind, shape in k.op.arrays[:2])
        print(
            f"  {k.seconds * 1e3:6.2f} ms {k.kind:9s} {k.turns * k.flops / 1e9:7.0f} GFLOP "
            f"{k.turns * k.bytes / 1e9:6.2f} GB  {arrays[:50]:50s} {k.line}"
        )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("configs", nargs="+", help="config files, or c4, fpn")
    parser.add_argument("--tasks", default="train,detect")
    parser.add_argument("--batch", default=8, type=int)
    parser.add_argument("--side", default=800, type=int, help="of the canvas, in pixels")
    parser.add_argument("--ground_truths", default=600, type=int)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"))
    parser.add_argument("--remat", action="store_true", help="residual blocks again for the gradient")
    parser.add_argument("--top", default=0, type=int, help="also the loops and this many kernels")
    parser.add_argument("--save", type=Path, help="folder for XLA's texts before and after")
    arguments = parser.parse_args()
    if util.find_spec("jax_cuda12_plugin") is None:
        sys.exit("XLA's compiler for CUDA 12 is missing: pip install -e '.[cuda12]' (6 GB, needs no GPU)")
    print(" | ".join(COLUMNS), flush=True)
    for config in arguments.configs:
        for task in arguments.tasks.split(","):
            name = f"{Path(config).stem} {task} {arguments.batch} x {arguments.side}"
            lowered = lower(arguments, config, task)
            start = time.perf_counter()
            compiled = lowered.compile()
            seconds, text = time.perf_counter() - start, compiled.as_text()
            if arguments.save:
                arguments.save.mkdir(parents=True, exist_ok=True)
                stem = arguments.save / name.replace(" ", "_")
                stem.with_suffix(".stablehlo.txt").write_text(lowered.as_text())
                stem.with_suffix(".hlo.txt").write_text(text)
            program = Program(text)
            print(" | ".join(row(name, seconds, compiled, program, arguments.batch)), flush=True)
            if arguments.top:
                details(program, arguments.top)


if __name__ == "__main__":
    main()
