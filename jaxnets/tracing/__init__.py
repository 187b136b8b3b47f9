"""Analysis of traced programs: what they cost, which part of the input an array depends on, what its values are."""
