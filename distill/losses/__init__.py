"""What a student is pulled towards: one loss a module, each with its formula and source.

Every loss is float32 whatever comes in, teaches the student alone, and has a slow reference
in the tests. True labels come in through `train.finetune.masked_bce`, as the teacher had them.
"""
