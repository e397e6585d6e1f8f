"""A package of networks as users have them, outside of this project: tests put its folder on the path."""
