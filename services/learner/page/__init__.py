"""The page: runs watched, compared and driven in a browser. Its files in static/ know the API by its public routes."""
