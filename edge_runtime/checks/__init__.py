"""Is what was installed what was released: this bundle, this engine and this machine checked.

    verify     does this machine compute what the maker of the bundle recorded?
    golden     one engine against the recorded golden vectors
    agreement  one engine beside another, every decision that differs
    doctor     what the machine has, and what stands in the way

`edge_runtime.commands.checks` prints them; a screener asks `golden` of every TensorRT engine.
"""
