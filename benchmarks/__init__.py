"""What a critic loss costs: bytes, operations and seconds, beside the packages in use today.

`python -m benchmarks` prints a table per case and size, then the figures the project promises;
`python -m benchmarks precision` prints how far gradients of a bf16 trunk turn.
"""
