"""Lists of differences, each with its reason: what is not listed is a problem, and what is listed and does
not show is one, too."""

import re


class Listed:
    """Differences from a list of `differs` (an expression for the line), `why`, and, where the list is for
    several inputs, `in` (their names)."""

    def __init__(self, entries):
        self.entries = entries or []
        for entry in self.entries:
            if not entry.get("why"):
                raise ValueError(f"no reason is given for `{entry['differs']}`")
        self.patterns = [re.compile(entry["differs"]) for entry in self.entries]
        # The place of an entry, and the input that it was seen for.
        self.seen = set()

    def unlisted(self, name, lines):
        """Those of the lines of an input that are not listed. What is listed is noted as seen."""
        left = []
        for line in lines:
            places = [place for place, entry in enumerate(self.entries)
                      if name in entry.get("in", [name]) and self.patterns[place].search(line)]
            self.seen.update((place, name) for place in places)
            if not places:
                left.append(line)
        return left

    def stale(self, names):
        """Of these inputs, what is listed and was not seen."""
        told = []
        seen_places = {place for place, _ in self.seen}
        for place, entry in enumerate(self.entries):
            says = f"listed, but does not differ: {entry['differs']}"
            if "in" not in entry and place not in seen_places:
                told.append(says)
            told += [f"{name}: {says}" for name in entry.get("in", [])
                     if name in names and (place, name) not in self.seen]
        return told

    def pruned(self):
        """The entries without what was not seen."""
        for place, entry in enumerate(self.entries):
            names = [name for name in entry["in"] if (place, name) in self.seen]
            if names:
                yield entry | {"in": names}
