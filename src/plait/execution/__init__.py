"""How work is cut into grains, run on threads and reported."""
