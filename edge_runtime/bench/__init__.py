"""How long an eye takes on this machine: measured, summarised, kept and compared.

    stages          stage by stage, FP32 and INT8 side by side
    modes           many at once, after a pause, cold, for hours
    latencies       many latencies in few numbers
    record          a measurement on disk, and the refusal to compare unlike ones
    machine_state   clocks, temperatures and throttling, as the kernel tells them
    process_memory  memory and descriptors of this process

The command is `edge_runtime.commands.bench`.
"""
