# From the notebooks to build/<profile>/html. `make book` runs this through `python -m ica.build.book`;
# by hand: snakemake --cores 2 --rerun-triggers params --config profile=ci
# What must run again follows from content, never from time stamps: each rule carries a digest of what it
# depends on as a parameter, so a fresh clone, a rebase or a touched file runs nothing.
import sys
from pathlib import Path

sys.path.insert(0, str(workflow.basedir))
from ica.build import notebooks, site
from ica.build.execute import ENVIRONMENT

ROOT = Path(workflow.basedir)
PROFILE = config.get("profile", "ci")
SETTINGS = str(config.get("set", ""))
OUT = f"build/{PROFILE}"
OVERRIDES = notebooks.overrides(ROOT, PROFILE, SETTINGS)
DIGESTS = {name: notebooks.digest(ROOT, name, values) for name, values in OVERRIDES.items()}
# Training runs: one job per configuration and seed group (ica/synthetic/training/runs.yml), shared by notebooks and profiles.
STORED = config.get("stored")
JOBS, NEEDED, KEPT, CODE = {}, {name: [] for name in DIGESTS}, {}, ""
if STORED or any(notebooks.runs(ROOT, name) for name in DIGESTS):
    from ica.synthetic.training import run, workflow as training

    CODE = run.code_digest(ROOT)
    NEEDED = training.needed(ROOT, OVERRIDES)
    DIGESTS = training.digests(DIGESTS, NEEDED, CODE)
    KEPT = {run.stem(job): job for job in training.to_store(STORED, str(config.get("runs") or ""))} if STORED else {}
    JOBS = {job.id: job for jobs in [*NEEDED.values(), KEPT.values()] for job in jobs}
# Language models: one job per model and category of BBQ (ica/llm/protocol/runs.yml), after the files that they need are there.
from ica.llm.model import assets
from ica.llm.protocol import shards, workflow as reading

MODELS = reading.to_store(str(config.get("models") or "")) if "models" in config else []
READ = reading.needed(ROOT, OVERRIDES)
LOADED = reading.models(ROOT, OVERRIDES)
LADDER = [shard for model in MODELS for shard in shards.shards("ladder", model)]
ATTACKED = reading.attacked(MODELS)
SHARDS = {shard.id: shard for group in [*READ.values(), LADDER] for shard in group}
READING = shards.code_digest(ROOT) if SHARDS else ""
DIGESTS = reading.digests(DIGESTS, READ, LOADED, READING)
SETTLED = " ".join(f"{name}={value}" for name, value in ENVIRONMENT.items() if "THREADS" not in name)


wildcard_constraints:
    id="[0-9a-f]{12}",
    shard="[0-9a-f]{12}",


rule all:
    input:
        f"{OUT}/html",


rule train:
    output:
        result="build/runs/{id}/result.json",
        weights="build/runs/{id}/weights.safetensors",
    params:
        code=CODE,
        job=lambda wildcards: run.command(JOBS[wildcards.id]),
        name=lambda wildcards: run.stem(JOBS[wildcards.id]),
    priority: 1
    threads: int(config.get("threads", 1))
    shell:
        "{SETTLED} OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads} {sys.executable} -m ica.synthetic.training.run {params.job} "
        "--threads {threads} --status {OUT}/status/{params.name}.json"


rule keep:
    input:
        lambda wildcards: f"build/runs/{KEPT[wildcards.stem].id}/result.json",
    output:
        "results/paper/{stem}.json",
    params:
        job=lambda wildcards: run.command(KEPT[wildcards.stem]),
        code=CODE,
    shell:
        "{sys.executable} -m ica.synthetic.training.run {params.job} --store"


rule stored:
    input:
        [f"results/paper/{stem}.json" for stem in KEPT],


rule fetch:
    output:
        "build/assets/{asset}.json",
    params:
        asset=lambda wildcards: assets.named(wildcards.asset).sha256,
    priority: 3
    shell:
        "{sys.executable} -m ica.llm.model.prepare {wildcards.asset} --out {output} --failure {OUT}/status/fetch-{wildcards.asset}.failure"


rule read:
    input:
        lambda wildcards: ancient([f"build/assets/{name}.json" for name in reading.assets_of(SHARDS[wildcards.shard])]),
    output:
        "build/llm/{shard}.json",
    params:
        code=READING,
        shard=lambda wildcards: reading.command(SHARDS[wildcards.shard]),
        source=lambda wildcards: [reading.content(one) for one in (SHARDS[wildcards.shard].model, SHARDS[wildcards.shard].items)],
        name=lambda wildcards: SHARDS[wildcards.shard].stem,
    priority: 2
    threads: 1
    shell:
        "{SETTLED} OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads} {sys.executable} -m ica.llm.protocol.measure {params.shard} "
        "--threads {threads} --status {OUT}/status/{params.name}.json"


rule attack:
    input:
        lambda wildcards: ancient(f"build/assets/{wildcards.model}.json"),
    output:
        "build/llm/secret/{model}.json",
    params:
        code=reading.attack_digest(ROOT) if ATTACKED else "",
        words=lambda wildcards: ATTACKED[wildcards.model],
        source=lambda wildcards: reading.content(wildcards.model),
    threads: 1
    shell:
        "{SETTLED} OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads} {sys.executable} -m ica.llm.jailbreak.attack {wildcards.model} "
        "--secrets {params.words} --out {output}"


rule ladder:
    input:
        [f"build/llm/{shard.id}.json" for shard in LADDER],
        attacks=[f"build/llm/secret/{model}.json" for model in ATTACKED],
    params:
        models=" ".join(MODELS),
    shell:
        "{sys.executable} -m ica.llm.protocol.results {params.models} && {sys.executable} -m ica.llm.jailbreak.results {input.attacks}"


rule execute:
    input:
        ancient("notebooks/{name}.ipynb"),
        lambda wildcards: [f"build/llm/{shard.id}.json" for shard in READ[wildcards.name]],
        lambda wildcards: ancient([f"build/assets/{name}.json" for name in LOADED[wildcards.name] if name in assets.table()]),
        lambda wildcards: [f"build/runs/{job.id}/result.json" for job in NEEDED[wildcards.name]],
    output:
        notebook=f"{OUT}/executed/{{name}}.ipynb",
        record=directory(f"{OUT}/record/{{name}}"),
    params:
        digest=lambda wildcards: DIGESTS[wildcards.name],
    # Long ones begin as soon as they can, so that none is left alone at the end.
    priority: lambda wildcards: 4 if notebooks.long(ROOT, wildcards.name) else 0
    threads: 1
    # SETTINGS is no parameter of the rule: what of it concerns a notebook is in that notebook's digest.
    shell:
        "{sys.executable} -m ica.build.execute {wildcards.name} --profile {PROFILE} --out {OUT} "
        "--set={SETTINGS:q}"


rule claims:
    input:
        expand(f"{OUT}/record/{{name}}", name=DIGESTS),
    output:
        ours=f"{OUT}/claims.json",
        paper=f"{OUT}/paper_claims.json",
    params:
        digest=site.registry_digest(ROOT, DIGESTS),
    log:
        f"{OUT}/status/claims.log",
    shell:
        "{sys.executable} -m ica.record.ledger {input} --out {output.ours} --paper {output.paper} 2> {log}"


rule site:
    input:
        claims=[f"{OUT}/claims.json", f"{OUT}/paper_claims.json"],
        executed=expand(f"{OUT}/executed/{{name}}.ipynb", name=DIGESTS),
    output:
        directory(f"{OUT}/html"),
    params:
        digest=site.source_digest(ROOT, DIGESTS),
    log:
        f"{OUT}/status/site.log",
    shell:
        "{sys.executable} -m ica.build.site {OUT} > {log} 2>&1"
