"""Record which lines each test of a project runs."""
