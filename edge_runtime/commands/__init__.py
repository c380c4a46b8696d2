"""The commands of `edge-screen`: how each is declared, what it does, and what it prints.

    NAME_cli   options and help; imported at every start, so without heavy imports
    NAME       what the command does; imported when it runs
    NAME_text  what it prints for people

NAME is bench, engine, screen, or checks (inspect, verify and doctor, declared in
`edge_runtime.cli`). `group` finds workstation commands, `options` are shared by several commands,
`outputs` refuses to overwrite what a command reads.
"""
