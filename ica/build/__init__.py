"""What `make` uses: `notebooks` and `imports` read sources, `execute` runs one notebook, `stage` and `site`
build pages, `book` does all of it, here or on a `cluster`, `repeat` does it twice; `peaks` says what memory it took.
"""
