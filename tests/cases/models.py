"""Whole architectures."""

from tests.cases.case import Case

CASES: list[Case] = []
