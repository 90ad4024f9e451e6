# From the notebooks to build/<profile>/html. `make book` runs this through `python -m ica.house.build`;
# by hand: snakemake --cores 2 --rerun-triggers params --config profile=ci
# What must run again follows from content, never from time stamps: each rule carries a digest of what it
# depends on as a parameter, so a fresh clone, a rebase or a touched file runs nothing.
import sys
from pathlib import Path

sys.path.insert(0, str(workflow.basedir))
from ica.house import notebooks, site

ROOT = Path(workflow.basedir)
PROFILE = config.get("profile", "ci")
SETTINGS = str(config.get("set", ""))
OUT = f"build/{PROFILE}"
OVERRIDES = notebooks.overrides(ROOT, PROFILE, SETTINGS)
DIGESTS = {name: notebooks.digest(ROOT, name, values) for name, values in OVERRIDES.items()}


rule all:
    input:
        f"{OUT}/html",


rule execute:
    input:
        ancient("notebooks/{name}.ipynb"),
    output:
        notebook=f"{OUT}/executed/{{name}}.ipynb",
        record=directory(f"{OUT}/record/{{name}}"),
    params:
        digest=lambda wildcards: DIGESTS[wildcards.name],
    threads: 1
    # SETTINGS is no parameter of the rule: what of it concerns a notebook is in that notebook's digest.
    shell:
        "{sys.executable} -m ica.house.execute {wildcards.name} --profile {PROFILE} --out {OUT} "
        "--set={SETTINGS:q}"


rule claims:
    input:
        expand(f"{OUT}/record/{{name}}", name=DIGESTS),
    output:
        f"{OUT}/claims.json",
    params:
        digest=site.registry_digest(ROOT, DIGESTS),
    log:
        f"{OUT}/status/claims.log",
    shell:
        "{sys.executable} -m ica.house.claims {input} --out {output} 2> {log}"


rule site:
    input:
        claims=f"{OUT}/claims.json",
        executed=expand(f"{OUT}/executed/{{name}}.ipynb", name=DIGESTS),
    output:
        directory(f"{OUT}/html"),
    params:
        digest=site.source_digest(ROOT, DIGESTS),
    log:
        f"{OUT}/status/site.log",
    shell:
        "{sys.executable} -m ica.house.site {OUT} > {log} 2>&1"
