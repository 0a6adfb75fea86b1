"""Which rule makes a file, found by how the file's name begins and ends.

Snakemake 9 compares each file that a job needs with every output of every rule. Two rules of the
sweep name the files of all doses and views, thousands in a large study, so that the time of its
graph grew with the square of their number. Its index is wrapped, since it has no hook there."""

from collections import defaultdict
from typing import Any

from snakemake.output_index import OutputIndex


def find_outputs_by_ending() -> None:
    """Let this process look an output up, where Snakemake looks through all of them."""
    build = OutputIndex.__init__

    def __init__(self: OutputIndex, rules: list) -> None:
        build(self, rules)
        # by beginning, then by ending up to the nearest wildcards
        self.endings = defaultdict(lambda: defaultdict(list))
        for rule in rules:
            for product in rule.products():
                begins, ends = str(product.constant_prefix()), str(product.constant_suffix())
                self.endings[begins][ends].append((rule, product))
        self.lengths = {begins: {*map(len, ends)} for begins, ends in self.endings.items()}

    def match_producers(self: OutputIndex, targetfile: str) -> set[Any]:
        found = set()
        for begins, endings in self.endings.items():
            if targetfile.startswith(begins):
                for length in self.lengths[begins]:
                    for rule, product in endings.get(targetfile[len(targetfile) - length :], ()):
                        if rule not in found and product.match(targetfile):
                            found.add(rule)
        return found

    OutputIndex.__init__, OutputIndex.match_producers = __init__, match_producers
