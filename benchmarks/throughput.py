"""Images/s of this package beside PyTorch on the same work, run in turns: training steps and prediction.

    python benchmarks/throughput.py [--cases c4-train,c4-predict,fpn-train,...] [--rounds 10]
        [--torch PYTHON] [--batch 1] [--dtype float32] [--side 800] [--ground_truths 150] [--channels_last]
        [--out FILE.json]

Each case starts one process of ours and one of the peer (torchvision, under the Python that --torch names;
`none` leaves it out). Both warm up, then run in turns, so that a noisy machine treats them alike. The table
has medians; the ratio is the median of the rounds' ratios. JAX and PyTorch take a GPU where there is one.
"""

import argparse
import json
import platform
import statistics
import subprocess
import sys
from pathlib import Path

from throughput_case import Case

HERE = Path(__file__).parent
MODELS, TASKS = ("c4", "fpn"), ("train", "detect", "predict")
COLUMNS = (
    "case",
    "ours",
    "torch",
    "ratio",
    "first call",
    "peak GiB",
    "peak GiB torch",
    "GFLOP/image",
    "of matmul",
)


class Process:
    """A contender in a process of its own."""

    def __init__(self, python: str, script: str, case: Case):
        command = [python, str(HERE / script)]
        self._pipe = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.facts = self.ask(case.to_dict())

    def ask(self, message: object) -> dict:
        """Sends a line and waits for the answer."""
        self._pipe.stdin.write(json.dumps(message) + "\n")
        self._pipe.stdin.flush()
        line = self._pipe.stdout.readline()
        if not line:
            raise SystemExit(f"{' '.join(self._pipe.args)} ended; its message stands above")
        return json.loads(line)

    def end(self) -> float:
        """The peak memory in GiB; the process goes."""
        peak = self.ask("end")["peak_gib"]
        self._pipe.stdin.close()
        self._pipe.wait()
        return peak


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--cases", default=",".join(f"{m}-{t}" for m in MODELS for t in TASKS))
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--torch", default=sys.executable, help="a Python that has torchvision, or none")
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--side", type=int, default=800)
    parser.add_argument("--ground_truths", type=int, default=150)
    parser.add_argument("--rois", type=int, default=512)
    parser.add_argument("--channels_last", action="store_true", help="torch's layout on a CPU")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = []
    for name in arguments.cases.split(","):
        model, task = name.split("-")
        case = Case(
            model,
            task,
            arguments.side,
            arguments.batch,
            arguments.ground_truths,
            arguments.dtype,
            arguments.rois,
            arguments.channels_last,
        )
        rows.append(measure(case, arguments.torch, arguments.rounds))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
        if arguments.out:
            arguments.out.write_text(json.dumps({"machine": platform.platform(), "rows": rows}, indent=1))
    print(table(rows))


def measure(case: Case, torch: str, rounds: int) -> dict:
    """Runs the contenders in turns."""
    ours = Process(sys.executable, "throughput_jax.py", case)
    peer = None if torch == "none" else Process(torch, "throughput_torch.py", case)
    seconds, counts = {"ours": [], "torch": []}, {}
    for _ in range(rounds):
        for name, process in (("ours", ours), ("torch", peer)):
            if process is not None:
                answer = process.ask("run")
                seconds[name].append(answer["seconds"])
                counts[name] = answer["count"]
    row = {"case": case.to_dict(), "seconds": seconds, "counts": counts, "facts": ours.facts}
    row["peak_gib"] = {"ours": ours.end()} | ({} if peer is None else {"torch": peer.end()})
    if peer is not None:
        row["first_call_torch_s"] = peer.facts["compile_s"]
        pairs = zip(seconds["torch"], seconds["ours"], strict=True)
        row["ratio"] = statistics.median(theirs / own for theirs, own in pairs)
    return row


def table(rows: list[dict]) -> str:
    """Markdown: images/s, their ratio, and the share of what large matrix products reach here."""
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for row in rows:
        case, facts = row["case"], row["facts"]
        median = {name: statistics.median(times) for name, times in row["seconds"].items() if times}
        rates = {name: case["batch"] / value for name, value in median.items()}
        gflop = facts.get("gflop")
        share = gflop / median["ours"] / facts["matmul_gflops"] if gflop else None
        cells = (
            f"{case['model']} {case['task']}, {case['batch']} x {case['side']}², "
            f"{case['ground_truths']} instances, {case['dtype']}",
            f"{rates['ours']:.3g} images/s",
            f"{rates['torch']:.3g} images/s" if "torch" in rates else "",
            f"**{row['ratio']:.2f}**" if "ratio" in row else "",
            f"{facts['compile_s']:.1f} s",
            f"{row['peak_gib']['ours']:.1f}",
            f"{row['peak_gib']['torch']:.1f}" if "torch" in row["peak_gib"] else "",
            f"{gflop / case['batch']:.0f}" if gflop else "",
            f"{share:.0%}" if share else "",
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
