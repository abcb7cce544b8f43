"""The tables of README.md and docs/performance.md, made from the JSON files of `benchmarks/results`.

    python -m benchmarks.harness.pages            # writes the tables into both pages
    python -m benchmarks.harness.pages --check    # only says whether the pages have the figures of the files

A file has the figures of one machine and one day. `python -m benchmarks.run --output benchmarks/results` leaves one
with all its rounds. Figures of other commands, and those whose rounds were not kept, are ready `"tables"` in such a
file or in one of their own; `"transcribed"` says where they come from if not from the command. A page has a line
`<!-- figures: NAME -->` and later one `<!-- end of figures -->`; between them come the tables of that name, one for
each file that has it. Whoever measures a machine anew removes its older file.
"""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

from hf_elmo.whole_files import new_file

from . import report

CHECKOUT = Path(__file__).parents[2]
RESULTS = CHECKOUT / "benchmarks" / "results"
PAGES = (CHECKOUT / "README.md", CHECKOUT / "docs" / "performance.md")
BLOCK = re.compile(r"(<!-- figures: (\w+) -->\n)(.*?)(<!-- end of figures -->)", re.DOTALL)
#: Rows of the short table, and what they are called there.
SHORT = {"original, batch 1": "1 sentence", "original, corpus, batch 128": "corpus by 128"}
#: Tables that are made of a comparison's rounds.
MADE = {
    "speed": lambda results: report.ratio_table(results) if results["rows"] else None,
    "floor": lambda results: report.floor_table(results) if results["rows"] else None,
    "exactness": lambda results: report.exactness_table(results) if results["rows"] else None,
    "memory": lambda results: report.memory_table(results) if results["memory"] else None,
}


def read_files(folder: Path) -> list[dict]:
    """All files of results, in the order of their names."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(folder.glob("*.json"))]


def versions_of(results: dict) -> dict[str, str]:
    """Versions of libraries, and the commit of hf_elmo, as far as a file has them."""
    versions = results["versions"]
    ours = next((versions[name] for name in versions if name.startswith("hf_elmo")), versions)
    kept = {name: ours[name] for name in ("torch", "transformers", "triton", "cudnn") if ours.get(name)}
    return kept | ({"hf_elmo": results["commit"]} if results.get("commit") else {})


def caption(results: dict, command: str | None) -> str:
    """The line before a table: machine, day, versions, command."""
    versions = ", ".join(f"{name} {version}" for name, version in versions_of(results).items())
    day = (results["machine"]["date"] or "day not stated").partition("T")[0]
    line = ", ".join([results["machine"]["processor"], day, versions or "versions not stated"])
    return f"{line} (`{command}`):" if command else f"{line}:"


def tables_of(results: dict, name: str) -> str | None:
    """A file's table of a name, with its caption; None if it has none."""
    stored = results.get("tables", {}).get(name)
    if stored is not None:
        return f"{caption(results, stored['command'])}\n\n{report.table(stored['heads'], stored['lines'])}"
    made = MADE[name](results) if name in MADE and "rows" in results else None
    return f"{caption(results, results['command'])}\n\n{made}" if made else None


def machines(files: list[dict]) -> str:
    """A list of all machines."""
    lines = []
    for results in files:
        machine = results["machine"]
        count = results.get("threads") or machine["cores"]
        parts = [f"**{machine['processor']}**", f"{count} cores" if count else "", *machine["flags"]]
        load = f"load average {machine['load_average'][0]:.1f}" if machine.get("load_average") else ""
        text = f"text: {results['text']['text']}" if results.get("text") else ""
        remarks = [(machine["date"] or "day not stated").partition("T")[0], machine.get("note"), load, text]
        remarks.append(results.get("transcribed"))
        lines.append(f"- {', '.join(filter(None, parts))}: {'; '.join(filter(None, remarks))}.")
    return "\n".join(lines)


def short(files: list[dict]) -> str:
    """The README's table: words a second of AllenNLP, and how many times as many others read; medians."""
    heads: list[str] = []
    found: list[tuple[str, dict[str, str]]] = []
    for results in files:
        stored = results.get("tables", {}).get("speed")
        if stored is not None:
            names, lines = stored["heads"], stored["lines"]
        else:
            names, lines = report.ratio_cells(results) if results.get("rows") else ([], [])
        heads += [each for each in names[1:] if each not in heads]
        for row, *cells in lines:
            if row in SHORT:
                medians = [cell.partition(" ")[0] for cell in cells]
                name = f"{results['machine']['processor']}, {SHORT[row]}"
                found.append((name, dict(zip(names[1:], medians, strict=True))))
    heads = [each for each in report.heads_of_ratios() if each in heads]
    return report.table(["", *heads], [[name, *(cells.get(head, "") for head in heads)] for name, cells in found])


def make_page(text: str, files: list[dict]) -> str:
    """A page with the figures of the files.

    Raises:
        ValueError: for the name of a table that no file has.
    """

    def block(match: re.Match[str]) -> str:
        name = match[2]
        if name in ("machines", "short"):
            made = machines(files) if name == "machines" else short(files)
        else:
            made = "\n\n".join(each for results in files if (each := tables_of(results, name)))
        if not made:
            raise ValueError(f"No file of results has a table {name!r}.")
        return f"{match[1]}\n{made}\n\n{match[4]}"

    return BLOCK.sub(block, text)


def main(arguments: list[str] | None = None) -> None:
    """Writes or checks the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", type=Path, default=RESULTS, help="folder of the JSON files")
    parser.add_argument("--pages", type=Path, nargs="+", default=PAGES)
    parser.add_argument("--check", action="store_true", help="write nothing; fail if a page has other figures")
    options = parser.parse_args(arguments)
    files = read_files(options.results)
    for page in options.pages:
        old = page.read_text(encoding="utf-8")
        new = make_page(old, files)
        if options.check and new != old:
            raise SystemExit(
                f"{page} does not have the figures of {options.results}: run python -m benchmarks.harness.pages."
            )
        if new != old:
            with new_file(page) as temporary:
                temporary.write_text(new, encoding="utf-8")


if __name__ == "__main__":
    main()
