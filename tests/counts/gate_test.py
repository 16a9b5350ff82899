#!/usr/bin/env python3
"""Tests of the gate: it fails where a count exceeds its budget, and where it has none."""

import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

import gate

HERE = Path(__file__).resolve().parent
FOUND = {
    "h1": {"instructions": 41_700.4, "allocations": 9.01, "client writes": 1.0, "connects": 0.0},
    "redirect": {"instructions": 19_200.0, "allocations": 10.0, "client writes": 1.0, "connects": 0.0},
}


def budgets():
    """Budgets of what was found, as `--bless` writes them and the gate reads them."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "budgets.toml")
        file.write_text(gate.text(FOUND, "rustc 1"))
        return gate.load(file)


class Gate(unittest.TestCase):
    """The gate."""

    def test_what_was_recorded_holds(self):
        self.assertEqual(gate.judge(budgets(), FOUND), (True, "the counts hold their budgets"))

    def test_each_budget_that_is_lowered_makes_it_fail(self):
        for scenario, counts in FOUND.items():
            for count in counts:
                lowered = budgets()
                share, more = gate.ALLOWED[count]
                lowered["scenarios"][scenario][count] -= FOUND[scenario][count] * share * 1.1 + more * 1.1
                holds, says = gate.judge(lowered, FOUND)
                self.assertFalse(holds, f"{scenario}, {count}")
                self.assertIn(scenario, says)
                self.assertIn(count, says)
                self.assertIn("make counts BLESS=1", says)

    def test_one_more_allocation_is_too_much(self):
        found = {"h1": FOUND["h1"] | {"allocations": 10.01}}
        holds, says = gate.judge(budgets(), found)
        self.assertFalse(holds)
        self.assertRegex(says, r"h1 +allocations +9\.01 +10\.01 +9\.41")

    def test_a_share_of_instructions_is_allowed(self):
        more = {"h1": FOUND["h1"] | {"instructions": 42_500}}
        self.assertTrue(gate.judge(budgets(), more)[0])
        too_many = {"h1": FOUND["h1"] | {"instructions": 42_600}}
        holds, says = gate.judge(budgets(), too_many)
        self.assertFalse(holds)
        self.assertRegex(says, r"h1 +instructions +41,700 +42,600 +42,534")

    def test_what_fell_is_told_and_holds(self):
        found = {"h1": FOUND["h1"] | {"instructions": 30_000.0, "allocations": 7.0}}
        holds, says = gate.judge(budgets(), found)
        self.assertTrue(holds)
        self.assertIn("less than the budget", says)
        self.assertIn("Lower the budgets", says)

    def test_a_count_without_a_budget_fails(self):
        for found in ({"h3": FOUND["h1"]}, {"h1": FOUND["h1"] | {"copies": 1.0}}):
            holds, says = gate.judge(budgets(), found)
            self.assertFalse(holds)
            self.assertIn("no budget", says)

    def test_a_budget_lowered_by_hand_ends_the_program_with_an_error(self):
        with tempfile.TemporaryDirectory() as folder:
            found, budget = Path(folder, "found.json"), Path(folder, "budgets.toml")
            found.write_text(json.dumps(FOUND))
            command = [sys.executable, HERE / "run", "--read", "--budgets", budget, found]
            subprocess.run([*command, "--bless"], check=True, capture_output=True)
            holding = subprocess.run([*command, "--gate"], capture_output=True, text=True, check=False)
            self.assertEqual(holding.returncode, 0, holding.stderr)
            text = budget.read_text()
            self.assertIn('"instructions" = 41700\n', text)
            budget.write_text(text.replace("= 41700\n", "= 40000\n"))
            broken = subprocess.run([*command, "--gate"], capture_output=True, text=True, check=False)
            self.assertEqual(broken.returncode, 1)
            self.assertRegex(broken.stdout, r"h1 +instructions +40,000 +41,700 +40,800")


if __name__ == "__main__":
    unittest.main()
