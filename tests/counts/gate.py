"""The budgets: what a request may cost, and what has become of it."""

import tomllib
from dataclasses import dataclass

# How far a count may exceed its budget: a share of it, and an absolute part. The room is for what does
# not come from requests: timers and the thread of the log run as often on a slow machine as on a quick
# one, and so more often for each request; a busy machine finds less ready at once. It is always less
# than one operation for each request, but for copies: whether a short text is copied by a call or in
# place is the choice of the compiler, which changes with code that has nothing to do with it.
ALLOWED = {
    "instructions": (0.02, 0),
    "allocations": (0, 0.4),
    "header operations": (0, 0.05),
    "copies": (0.12, 0.5),
    "clock reads": (0, 0.5),
    "client reads": (0, 0.05),
    "client writes": (0, 0.3),
    "backend reads": (0, 0.05),
    "backend writes": (0, 0.05),
    "connects": (0, 0.01),
    "epoll_ctl": (0, 0.03),
    "epoll_wait": (0.5, 0.3),
    "futex": (0, 0.3),
    "system calls": (0.05, 0.5),
}

ADVICE = """\
The change makes a request cost more. Find out where: tests/counts/run --keep FOLDER keeps callgrind's
profiles. If the change is worth it, record the budgets with `make counts BLESS=1`, and say in the
message of the commit what rose, from what to what, and why. docs/counts.md has the rest."""


@dataclass(frozen=True)
class Difference:
    """A count that is not its budget."""

    scenario: str
    count: str
    budget: float
    found: float
    most: float

    @property
    def rose(self):
        """Whether it is more than is allowed."""
        return self.found > self.most


def differences(budgets, found):
    """The counts that rose beyond what is allowed, or fell by as much."""
    differing = []
    for scenario, counts in found.items():
        for count, value in counts.items():
            share, more = ALLOWED[count]
            budget = budgets[scenario][count]
            room = budget * share + more
            if abs(value - budget) > room:
                differing.append(Difference(scenario, count, budget, value, budget + room))
    return differing


def missing(budgets, found):
    """Scenarios and counts that have no budget, as `SCENARIO: COUNT`."""
    return [f"{scenario}: {count}" for scenario, counts in found.items() for count in counts
            if count not in budgets.get(scenario, {})]


def figure(value):
    """A count as people read it."""
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3f}".rstrip("0").rstrip(".")


def table(head, rows):
    """Rows in columns: two to the left, the others to the right."""
    widths = [max(len(row[place]) for row in [head, *rows]) for place in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) if place < 2 else cell.rjust(width)
                  for place, (cell, width) in enumerate(zip(row, widths))).rstrip()
        for row in [head, *rows])


def judge(budgets, found):
    """(whether the counts hold, what there is to say)."""
    if nameless := missing(budgets["scenarios"], found):
        return False, "no budget: " + ", ".join(nameless) + "\nRecord it: make counts BLESS=1"
    differing = differences(budgets["scenarios"], found)
    said = []
    for rose, title in ((True, "more than the budget"), (False, "less than the budget")):
        rows = [(each.scenario, each.count, figure(each.budget), figure(each.found),
                 figure(each.most) if rose else "") for each in differing if each.rose == rose]
        if rows:
            last = "at most" if rose else ""
            said.append(f"{title}:\n" + table(("scenario", "count", "budget", "found", last), rows))
    if any(each.rose for each in differing):
        return False, "\n\n".join([*said, ADVICE])
    if differing:
        said.append("Lower the budgets in the commit that lowers the counts: make counts BLESS=1")
    return True, "\n\n".join([*said, "the counts hold their budgets"])


def load(file):
    """Reads the budgets."""
    return tomllib.loads(file.read_text())


HEAD = """\
# What a request may cost. Written by `make counts BLESS=1`; docs/counts.md says what each count is.
"""


def text(found, made_by):
    """The budgets as they stand in their file."""
    parts = [HEAD + f'\n# Another compiler or processor counts other instructions.\nmade_by = "{made_by}"\n']
    for scenario, counts in found.items():
        lines = "".join(f'"{count}" = {round(value) if value >= 1000 else round(value, 3)}\n'
                        for count, value in counts.items())
        parts.append(f"\n[scenarios.{scenario}]\n{lines}")
    return "".join(parts)
