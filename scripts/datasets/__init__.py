"""Raw face datasets: readers of the published layouts, and the steps from them to KITTI folders.

Nothing is imported here: Snakemake loads `datasets.fingerprint` while it parses the rules.
"""
