"""What `screen` does over many files: plan, read, answer once, record, survive an interruption.

    plan              what a run is to look at, in order, before any picture is opened
    inputs            a plan from files, folders and patterns
    examination_list  a plan from a clinic's CSV list
    reading           the bytes of one planned examination, with their hashes
    run               carry out the plan in threads
    shared_pictures   one picture under two examinations of the run
    progress          what a person sees meanwhile, and Ctrl-C
    record            the folder of answers: what was screened stays screened
    answers           the same in memory, for a run without a folder
    entries           one examination and its answer, as reports take it

`edge_runtime.commands.screen` puts them together; `edge_runtime.screener` answers one examination.
"""
