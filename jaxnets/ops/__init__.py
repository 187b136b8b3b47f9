"""Array functions in the formulation that is fastest on their platform."""
