#!/usr/bin/env python3
"""Tests of the lists: a difference that is not listed is told, and one that is listed and gone, too."""

import unittest

from lists import Listed

ENTRIES = [
    {"differs": "^a is .* here$", "why": "it is so", "in": ["one", "two"]},
    {"differs": "^b ", "why": "that, too", "in": ["one"]},
]


class Lists(unittest.TestCase):
    """A list for several inputs, and one for all."""

    def test_what_is_listed_is_no_problem(self):
        listed = Listed(ENTRIES)
        self.assertEqual(listed.unlisted("one", ["a is x here", "b is gone"]), [])
        self.assertEqual(listed.unlisted("two", ["a is y here"]), [])
        self.assertEqual(listed.stale({"one", "two"}), [])

    def test_what_is_not_listed_for_this_input_is_told(self):
        listed = Listed(ENTRIES)
        self.assertEqual(listed.unlisted("two", ["b is gone", "c"]), ["b is gone", "c"])
        self.assertEqual(listed.unlisted("three", ["a is x here"]), ["a is x here"])

    def test_what_does_not_show_any_more_is_told_and_pruned(self):
        listed = Listed(ENTRIES)
        listed.unlisted("one", ["a is x here"])
        listed.unlisted("two", [])
        self.assertEqual(listed.stale({"one", "two"}), [
            "two: listed, but does not differ: ^a is .* here$", "one: listed, but does not differ: ^b "])
        self.assertEqual(listed.stale({"two"}), ["two: listed, but does not differ: ^a is .* here$"])
        self.assertEqual(list(listed.pruned()), [ENTRIES[0] | {"in": ["one"]}])

    def test_a_list_for_all_inputs_needs_one(self):
        listed = Listed([{"differs": "x", "why": "so"}, {"differs": "y", "why": "so"}])
        self.assertEqual(listed.unlisted("any", ["x", "z"]), ["z"])
        self.assertEqual(listed.stale({"any"}), ["listed, but does not differ: y"])

    def test_a_reason_is_required(self):
        with self.assertRaises(ValueError):
            Listed([{"differs": "x", "why": ""}])


if __name__ == "__main__":
    unittest.main()
