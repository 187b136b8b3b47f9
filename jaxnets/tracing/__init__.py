"""Analysis of traced programs: costs, the part of the input that an array depends on, and values."""
