"""The tables of `run.py`, as Markdown."""

from __future__ import annotations

import statistics

from .machine import BLOCK

NAMES = {
    "allennlp": "AllenNLP",
    "fast_elmo": "pytorch-fast-elmo",
    "simple_elmo": "simple_elmo",
    "hf_elmo fp32": "exact fp32",
    "hf_elmo bf16": "bf16",
    "hf_elmo int8": "int8",
}


def spread(values: list[float], digits: int = 1) -> str:
    """The median, and the smallest and largest if there are several."""
    middle = f"{statistics.median(values):.{digits}f}"
    return middle if len(values) == 1 else f"{middle} ({min(values):.{digits}f}..{max(values):.{digits}f})"


def ratios(row: dict, column: str) -> list[float]:
    """Each round's speed of a column, AllenNLP's being 1; an empty list where one of the two is absent."""
    pairs = [(each["seconds"].get("allennlp"), each["seconds"].get(column)) for each in row["rounds"]]
    return [theirs / ours for theirs, ours in pairs if theirs and ours]


def speeds(row: dict, column: str) -> list[float]:
    """Words per second of each round."""
    return [each["words"] / each["seconds"][column] for each in row["rounds"] if column in each["seconds"]]


def shares(row: dict, kind: str) -> list[float]:
    """Which part of the floor's speed each round reached."""
    column = f"hf_elmo {kind}"
    return [
        each["floors"][kind]["seconds"] / each["seconds"][column]
        for each in row["rounds"]
        if each["floors"].get(kind) and column in each["seconds"]
    ]


def table(heads: list[str], lines: list[list[str]]) -> str:
    """A table in Markdown."""
    rule = ["---", *["---:"] * (len(heads) - 1)]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [heads, rule, *lines])


def ratio_cells(results: dict) -> tuple[list[str], list[list[str]]]:
    """Heads and lines: AllenNLP's words per second, and how many times as many the others read."""
    columns = [name for name in NAMES if any(name in row["columns"] for row in results["rows"])]
    lines = []
    for row in results["rows"]:
        cells = [row["row"]["name"]]
        for column in columns:
            values = ratios(row, column)
            if column == "allennlp":
                cells.append(spread(speeds(row, column), 0) if column in row["columns"] else "")
            else:
                cells.append(spread(values) if values else "")
        lines.append(cells)
    heads = heads_of_ratios()
    return ["", *(heads[list(NAMES).index(column)] for column in columns)], lines


def heads_of_ratios() -> list[str]:
    """The heads of `ratio_cells` for all columns that there can be, in their order."""
    return ["AllenNLP, words/s" if column == "allennlp" else f"{name}, x" for column, name in NAMES.items()]


def ratio_table(results: dict) -> str:
    """`ratio_cells` in Markdown."""
    return table(*ratio_cells(results))


def floor_table(results: dict) -> str:
    """Words per second of hf_elmo, the floor, and the share of it that was reached."""
    lines = []
    for row in results["rows"]:
        for kind in row["row"]["kinds"]:
            column, reached = f"hf_elmo {kind}", shares(row, kind)
            if column not in row["columns"]:
                continue
            cells = [row["row"]["name"], kind, spread(speeds(row, column), 0)]
            if reached:
                rounds = [each for each in row["rounds"] if each["floors"].get(kind)]
                floors = [each["words"] / each["floors"][kind]["seconds"] for each in rounds]
                work = [each["floors"][kind]["operations"] / each["words"] / 1e6 for each in rounds]
                weights = [each["floors"][kind]["weight_bytes"] / each["words"] / 1e6 for each in rounds]
                cells += [spread(floors, 0), f"{statistics.median(work):.0f}", f"{statistics.median(weights):.1f}"]
                cells.append(spread([100 * share for share in reached], 0))
            else:
                cells += [""] * 4
            lines.append(cells)
    heads = ["", "numbers", "words/s", "floor, words/s", "MFLOP/word", "MB of weights/word", "% of the floor"]
    return table(heads, lines)


def exactness_table(results: dict) -> str:
    """Differences to AllenNLP, or to hf_elmo in fp32."""
    lines = []
    for row in results["rows"]:
        for column, values in row["exactness"].items():
            cells = [row["row"]["name"], NAMES[column], NAMES[values["of"]]]
            if "largest_relative" in values:
                cells += [f"{values['largest_relative']:.1e} of the largest gradient", "", ""]
            else:
                cells.append(f"{values['largest']:.1e}")
                cells += [f"{values[name]:.6f}" for name in ("lowest_cosine", "mean_cosine")]
            lines.append(cells)
    return table(["", "", "compared with", "largest difference", "lowest cosine", "mean cosine"], lines)


def memory_table(results: dict) -> str:
    """Memory above the imports, in MB, and seconds of loading."""
    lines = []
    for result in results["memory"]:
        cells = [NAMES[result["column"]]]
        if "done" in result:
            imports, loaded, done = result["imports"], result["loaded"], result["done"]
            base = imports.get("rss", imports["peak"])
            cells += [f"{done['peak'] - base:.0f}", f"{loaded.get('rss', loaded['peak']) - base:.0f}"]
            cells += [
                f"{done[name] - imports[name]:.0f}" if name in done and name in imports else ""
                for name in ("anonymous", "file")
            ]
            cells += [spread(result["load_seconds"], 2), f"{result['import_seconds']:.1f}"]
        else:
            cells += [result.get("failed", "no answer"), "", "", "", "", ""]
        lines.append(cells)
    heads = ["", "peak", "loaded", "anonymous, in the end", "files, in the end", "load, s", "imports, s"]
    return table(heads, lines)


def limits_line(results: dict) -> str:
    """What products and reading reached, over all rounds."""
    limits = [each["machine"] for row in results["rows"] for each in row["rounds"]]
    if not limits:
        return "not measured"
    parts = []
    for kind in ("fp32", "bf16", "int8"):
        values = [each["operations"][kind] / 1e9 for each in limits if each["operations"][kind]]
        if values:
            parts.append(f"{kind} {spread(values, 0)} GFLOP/s")
    values = [each["bandwidth"][-1] / 1e9 for each in limits]
    return ", ".join([*parts, f"reading {BLOCK // 2**20} MB {spread(values)} GB/s"])


def text(results: dict) -> str:
    """Everything, for people."""
    machine, build = results["machine"], results["versions"].get("machine", {})
    load = machine["load_average"]
    parts = [
        f"{machine['processor']}, {machine['cores']} cores ({' '.join(machine['flags'])}), {machine['system']}; "
        f"torch {build.get('torch')}, {results['threads']} threads; {machine['date']}, "
        f"load average before {load[0] if load else 'unknown'}; {results['minutes']} minutes",
        *([f"Text: {read['text']}, {read['sentences']:,} sentences."] if (read := results.get("text")) else []),
        f"Fastest products and reading, medians of rounds (smallest..largest): {limits_line(results)}.",
        *(f"Left out: {name}: {reason}." for name, reason in results["absent"].items()),
        *(f"Note: {note}." for note in results["notes"]),
    ]
    if results["rows"]:
        parts += [
            "Speed: AllenNLP's words per second, and how many times as many others read; medians of each round's ratio "
            "(smallest..largest).",
            ratio_table(results),
            "hf_elmo and the floor of this machine (benchmarks/harness/floor.py):",
            floor_table(results),
        ]
        if any(row["exactness"] for row in results["rows"]):
            parts += ["Exactness, all layers of the first round:", exactness_table(results)]
    if results["memory"]:
        parts += ["Memory above the imports in MB, original size, and loading:", memory_table(results)]
    return "\n\n".join(parts)
