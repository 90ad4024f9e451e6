"""What `make` uses: `notebooks` and `imports` read sources, `execute` runs one notebook, `stage` and `site`
build pages, `book` does all of it, `repeat` does it twice.
"""
