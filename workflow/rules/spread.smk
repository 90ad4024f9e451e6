# What runs on many machines at once and is no part of the book: `make sweep` and `make paper-llm` with CLUSTER. Their results are those
# of the same commands without it, bit for bit. The files that the rules make say only that the results are there.
SPREAD_UNITS = []
if ASKED.target == "sweep":
    from ica.synthetic.training import sweep

    SWEPT = {name: sweep.job_of(ASKED.stored, name) for name in sweep.asked(ASKED.stored, ASKED.runs)}
    SPREAD_UNITS += [
        mend.Unit(f"sweep {name}", (Path(f"build/sweep/{ASKED.stored}-{name}.json"),), list, lambda job=job: not sweep.current(job))
        for name, job in SWEPT.items()
    ]

    localrules: sweep

    rule sweep:
        input:
            [f"build/sweep/{ASKED.stored}-{name}.json" for name in SWEPT],

    rule swept:
        output:
            f"build/sweep/{ASKED.stored}-{{name}}.json",
        params:
            made=lambda wildcards: sweep.made(SWEPT[wildcards.name]),
            scale=ASKED.stored,
        threads: 1
        shell:
            "exec {sys.executable:q} -m ica.synthetic.training.sweep {params.scale} {wildcards.name} --done {output} "
            "--status {OUT}/status/sweep-{params.scale}-{wildcards.name}.json"

else:
    from ica.llm.paper import parts

    ASKING = parts.Spread(ASKED.words, ASKED.threads)
    SPREAD_UNITS += [mend.Unit("the result of paper-llm", (Path(f"{ASKING.folder}/result.json"),), list, ASKING.gone)]

    rule paper_llm:
        input:
            [f"{ASKING.folder}/{part}.json" for part in ASKING.parts],
        output:
            f"{ASKING.folder}/result.json",
        params:
            words=ASKING.id,
        threads: ASKED.threads
        resources:
            gpu=ASKING.gpus,
        shell:
            "exec {sys.executable:q} -m ica.llm.paper.run --asked {SETTINGS} --threads {threads} --done {output} "
            "--status {OUT}/status/paper-llm-result.json"

    rule ask:
        output:
            f"{ASKING.folder}/{{part}}.json",
        wildcard_constraints:
            part="[0-9]+",
        params:
            words=ASKING.id,
        threads: ASKED.threads
        resources:
            gpu=ASKING.gpus,
        shell:
            "exec {sys.executable:q} -m ica.llm.paper.run --asked {SETTINGS} --threads {threads} --part {wildcards.part} --done {output} "
            "--status {OUT}/status/paper-llm-{wildcards.part}.json"
