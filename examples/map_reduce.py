"""MapReduce over the sources of the Python standard library, and over pi.

``python examples/map_reduce.py --engines 4``. Each answer is compared with the answer of a plain loop.
"""

from __future__ import annotations

import argparse
import decimal
import os
import re
import sys
import sysconfig
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from nsactors.models.map_reduce import MapReduce

WORD = re.compile(r"\w+")
DIGITS = [99959, 99758, 100026, 100229, 100230, 100359, 99548, 99800, 99985, 100106]  # among a million decimals of pi


def sources(most: int | None = None) -> list[str]:
    """List the files of the standard library, without tests and installed packages."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    found = (str(path) for path in sorted(folder.rglob("*.py")))
    return [path for path in found if not re.search(r"site-packages|/tests?/|/idle_test/", path)][:most]


def add(key: Any, counts: list[int]) -> Iterator[tuple[Any, int]]:
    """Reduce or combine: return the sum."""
    yield key, sum(counts)


def words_of_many(files: Iterable[tuple[str, str]]) -> Iterable[tuple[str, int]]:
    """Map a whole part of the input: count its words."""
    counts: Counter[str] = Counter()
    for _, text in files:
        counts.update(WORD.findall(text))
    return counts.items()


def count_words(mr: MapReduce, paths: Sequence[str]) -> dict[str, int]:
    """Count the uses of each word."""
    from nsactors.models.inputs import text_files
    from nsactors.models.map_reduce import Step

    return mr.run(text_files(*paths, errors="replace"), Step(words_of_many, add, by_split=True)).to_dict()


def make_index(mr: MapReduce, paths: Sequence[str]) -> dict[str, list[str]]:
    """List the files that use each word."""
    from nsactors.models.inputs import text_files
    from nsactors.models.map_reduce import Step

    def words(file: tuple[str, str]) -> Iterator[tuple[str, str]]:
        path, text = file
        return ((word, path) for word in set(WORD.findall(text)))

    def places(word: str, paths: list[str]) -> Iterator[tuple[str, list[str]]]:
        yield word, sorted(paths)

    return mr.run(text_files(*paths, errors="replace"), Step(words, places)).to_dict()


def grep(mr: MapReduce, pattern: str, paths: Sequence[str]) -> list[tuple[tuple[str, int], str]]:
    """Find the lines that match a pattern, with file and line number."""
    from nsactors.models.inputs import text_files
    from nsactors.models.map_reduce import Step

    def lines(file: tuple[str, str]) -> Iterator[tuple[tuple[str, int], str]]:
        path, text = file
        for number, line in enumerate(text.splitlines(), 1):
            if re.search(pattern, line):
                yield (path, number), line

    return sorted(mr.run(text_files(*paths, errors="replace"), Step(lines)))


def decimals_of_pi(count: int) -> str:
    """Compute the first decimals of pi by the formula of the Chudnovsky brothers, with binary splitting."""
    context = decimal.Context(prec=count + 50, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN)

    def split(low: int, high: int) -> tuple[decimal.Decimal, decimal.Decimal, decimal.Decimal]:
        if high - low == 1:
            p = (6 * low - 5) * (2 * low - 1) * (6 * low - 1) if low else 1
            q = low**3 * 10939058860032000 if low else 1
            t = (-1) ** low * p * (13591409 + 545140134 * low)
            return decimal.Decimal(p), decimal.Decimal(q), decimal.Decimal(t)
        p1, q1, t1 = split(low, (low + high) // 2)
        p2, q2, t2 = split((low + high) // 2, high)
        return p1 * p2, q1 * q2, t1 * q2 + p1 * t2

    with decimal.localcontext(context):
        _, q, t = split(0, count // 14 + 2)
        return str(q * 426880 * root(10005, count + 50) / t)[2 : count + 2]


def root(number: int, digits: int) -> decimal.Decimal:
    """Compute a square root by Newton's method for its reciprocal; a million digits take 0.3 s, with ``sqrt()`` 8 s."""
    known = 25
    reciprocal = 1 / decimal.Decimal(number).sqrt(decimal.Context(prec=2 * known))
    while known < digits:
        known = min(2 * known, digits)
        with decimal.localcontext(prec=known + 10):
            reciprocal += reciprocal * (1 - number * reciprocal * reciprocal) / 2
    return number * reciprocal


def count_pieces(mr: MapReduce, digits: str, length: int) -> dict[str, int]:
    """Count each sequence of ``length`` digits; the chunks overlap, so that no sequence is lost at a cut."""
    from nsactors.models.inputs import chunks
    from nsactors.models.map_reduce import Step

    def pieces(chunk: tuple[int, str]) -> Iterable[tuple[str, int]]:
        _, text = chunk
        return Counter(text[i : i + length] for i in range(len(text) - length + 1)).items()

    return mr.run(chunks(digits, 10_000, overlap=length - 1), Step(pieces, add, combiner=add)).to_dict()


def timed(title: str, compute: Any, *args: Any) -> Any:
    """Call ``compute``, and print the time that it takes."""
    begun = time.perf_counter()
    value = compute(*args)
    print(f"{title}: {time.perf_counter() - begun:.2f} s")
    return value


def serial(paths: Sequence[str]) -> tuple[Counter[str], dict[str, list[str]]]:
    """Compute words and index without engines."""
    counts: Counter[str] = Counter()
    index: dict[str, list[str]] = defaultdict(list)
    for path in paths:
        words = Counter(WORD.findall(Path(path).read_text(encoding="utf-8", errors="replace")))
        counts.update(words)
        for word in words:
            index[word].append(path)
    return counts, {word: sorted(found) for word, found in index.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all jobs, print, and check."""
    parser = argparse.ArgumentParser(description="MapReduce jobs.")
    parser.add_argument("--files", type=int, help="number of files to read (default: all)")
    parser.add_argument("--decimals", type=int, default=1_000_000, help="decimals of pi")
    parser.add_argument("--engines", type=int, default=2)
    parser.add_argument("--backend", default="ray", choices=["ray", "local"])
    options = parser.parse_args(arguments)
    from nsactors import Cluster
    from nsactors.models.map_reduce import MapReduce

    paths = sources(options.files)
    print(f"{len(paths)} files, {sum(map(os.path.getsize, paths)) / 1e6:.1f} MB")
    with Cluster(n=options.engines, backend=options.backend) as rc:
        mr = MapReduce(rc)
        counts = timed("words", count_words, mr, paths)
        index = timed("index", make_index, mr, paths)
        found = timed("grep", grep, mr, "import antigravity", paths)
        decimals = timed("pi", decimals_of_pi, options.decimals)
        digits = timed("digits", count_pieces, mr, decimals, 1)
        pairs = timed("pairs", count_pieces, mr, decimals[:10_000], 2)
    right_counts, right_index = timed("without engines, words and index", serial, paths)
    in_order = [digits[str(digit)] for digit in range(10)]
    most, least = max(pairs, key=pairs.__getitem__), min(pairs, key=pairs.__getitem__)
    checks = [
        (f"{len(counts):,} words, most of all {max(counts, key=counts.__getitem__)!r}", counts == right_counts),
        ("where they are", index == right_index),
        (f"{len(found)} lines found", all("import antigravity" in line for _, line in found)),
        (
            f"digits {in_order}",
            in_order == (DIGITS if options.decimals == 1_000_000 else list(map(decimals.count, "0123456789"))),
        ),
        (
            f"{sum(pairs.values())} pairs, {most} most ({pairs[most]}), {least} least ({pairs[least]})",
            options.decimals < 10_000
            or (sum(pairs.values()), most, pairs[most], least, pairs[least]) == (9999, "65", 124, "88", 80),
        ),
    ]
    for text, right in checks:
        print(f"{text}: {'right' if right else 'WRONG'}")
    return int(not all(right for _, right in checks))


if __name__ == "__main__":
    sys.exit(main())
