"""The chapters of the page: each module has `section(results, folder)` and its figures."""
