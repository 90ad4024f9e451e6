"""The package mirrors the book's three parts, on a small common ground; imports point down.

- `checks`, `intervals`, `objectives`, `minimiser`, `transformer`: validation, intervals, losses and their exact
  minimiser, the one transformer.
- `theory`: Part I. Prompts, gradient descent, and `theory.constructions`: weights that do its steps.
- `synthetic`: Part II. What is asked (`task`), how models are made (`training`), what is read off them (`analysis`).
- `llm`: Part III. Models (`model`), BBQ (`bbq`), what is asked of them (`protocol`), attacks (`jailbreak`), `analysis`,
  the paper's own protocol for one model (`paper`), and critics that are taught (`taught`).
- `record`: what a notebook uses to write down figures, tables, numbers and claims, and how claims are judged.
- `build`: what `make` uses to run notebooks and build pages.
- `bench`: what `make bench` measures: our computations beside other ways to the same numbers. Nothing imports it.
"""
