"""Answers as people read them: the table, the page, and the words and marks both are made of.

    writer        the files of a run, each whole or not at all
    table         CSV, one row an eye
    page          HTML, one page for an operator
    overview      what its top says of the whole run
    marks         answers as a shape, a sign, a word and a colour
    style         colours and style sheet
    markup        escaped HTML
    overlay       class evidence over the picture
    next_steps    what an operator does next, for every answer and reason
    result_words  how a probability is told

What a terminal shows is in `edge_runtime.commands`, in the modules that end in `_text`.
"""
