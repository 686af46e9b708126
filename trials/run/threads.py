"""Settings of a process that computes with torch on a CPU."""


def cpu_settings(threads: int) -> dict[str, str]:
    """Environment variables, which OpenMP and torch read when torch is imported.

    Torch's tensors take pages of 2 MiB where the system has them, because the system clears each page at its first use. On one
    core 1,830 tokens a second went through SmolLM2-135M in bfloat16, in place of 1,585.

    By default a thread that waits for another one spins. Where other processes want the cores, it takes the core that the other
    thread needs. At a load of nine on two cores, two threads took 141 s for what took 17 s with passive waiting, and one thread
    8 s. On the idle machine passive waiting costs a sixth: 4.5 s in place of 3.8 s.
    """
    return {"OMP_NUM_THREADS": str(threads), "OMP_WAIT_POLICY": "PASSIVE", "THP_MEM_ALLOC_ENABLE": "1"}
